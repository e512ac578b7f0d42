"""How well models predict contexts they never saw perturbed: the study's nine metrics, every context held out in turn.

python -m benchmarks.accuracy --models mtae no-change mean-shift
python -m benchmarks.accuracy --models mtae --preset study --hold-out CD14+Mono --seeds 1 2 19193
python -m benchmarks.accuracy --models mtae scgen --hold-out B NK --seeds 1 2 --precision float32 bfloat16
"""

import argparse
import itertools
import os
import time
from pathlib import Path

import pandas as pd

import multipert as mp
from multipert.evaluation import STUDY
from multipert.process import own_process
from multipert.training import PRECISIONS

KEYS = {
    "kang_subset": {"perturbation_key": "condition", "control": "control", "context_key": "cell_type"},
    "mcfaline_subset": {"perturbation_key": "perturbation", "control": "control", "context_key": "cell_line"},
}


def data_folder() -> Path:
    """Where the real cells are: ``MULTIPERT_DATA``, else ``../shared/data`` beside the project's root."""
    return Path(os.environ.get("MULTIPERT_DATA", Path(__file__).parents[2] / "shared" / "data"))


def main() -> None:
    """Fit, predict and score every trial; print a row for each, then the means."""
    own_process()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=KEYS, default="kang_subset")
    parser.add_argument("--models", nargs="+", default=["mtae"])
    parser.add_argument("--preset", default="default")
    parser.add_argument("--hold-out", nargs="+", help="contexts; all by default")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=["auto"])
    parser.add_argument("--out", type=Path, help="also write the rows here, after each fit")
    options = parser.parse_args()

    data = mp.PerturbationData.from_anndata(data_folder() / f"{options.data}.h5ad", **KEYS[options.data])
    rows = []
    for context in options.hold_out or data.contexts:
        split = mp.leave_context_out(data, context)
        controls = data.to_anndata(data.rows(condition=data.control, context=context))
        for name, precision, seed in itertools.product(options.models, options.precision, options.seeds):
            started = time.monotonic()
            model = mp.models.create(name, preset=options.preset, seed=seed).fit(data, split, precision=precision)
            seconds = time.monotonic() - started
            for perturbation in data.perturbations:
                truth = data.to_anndata(data.rows(condition=perturbation, context=context))
                predicted = model.predict(controls, perturbation)
                scores = mp.evaluate(control=controls, truth=truth, predicted=predicted, metrics=[*STUDY, "edist"])
                trial = {"model": name, "precision": precision, "held_out": context, "perturbation": perturbation}
                rows.append({**trial, "seed": seed, **scores, "seconds": seconds, "parameters": model.n_parameters})
            print(f"{name} without {context}, {precision}, seed {seed}: {seconds:.1f} s", flush=True)
            if options.out:
                pd.DataFrame(rows).to_csv(options.out, index=False)
    table = pd.DataFrame(rows)
    with pd.option_context("display.width", 250, "display.max_columns", 30, "display.precision", 3):
        print(table.drop(columns=["parameters"]).to_string(index=False))
        print("\nmeans")
        means = table.groupby(["model", "precision"], sort=False).mean(numeric_only=True)
        print(means.drop(columns="seed").to_string())


if __name__ == "__main__":
    main()
