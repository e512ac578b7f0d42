"""Compare settings of a model without looking at any held-out truth.

For each outer context, its perturbed cells are put away for good; among the others, each inner context is held out in
turn and predicted. Only inner scores are printed, so that what is chosen here can be judged on the outer contexts.

    python -m benchmarks.choose_defaults --model mtae --outer B NK --inner 3 -- epochs=30 "epochs=60 dropout=0.2"
"""

import argparse
import time

import numpy as np
import pandas as pd

import multipert as mp
from benchmarks.accuracy import KEYS, data_folder
from multipert.process import own_process

SHOWN = ["degs", "r2_hvg", "r2_deg20", "r2_deg100", "edistance", "edist"]


def main() -> None:
    """Print the mean inner score of each candidate."""
    own_process()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=KEYS, default="kang_subset")
    parser.add_argument("--model", default="mtae")
    parser.add_argument("--preset", default="default")
    parser.add_argument("--outer", nargs="+", help="contexts put away in turn; all by default")
    parser.add_argument("--inner", type=int, default=2, help="inner contexts for each outer one, the largest first")
    parser.add_argument("candidates", nargs="+", help="settings to compare, each 'key=value key=value'; '' for none")
    options = parser.parse_args()

    everything = mp.PerturbationData.from_anndata(data_folder() / f"{options.data}.h5ad", **KEYS[options.data])
    rows = []
    for outer in options.outer or everything.contexts:
        test = mp.leave_context_out(everything, outer).test
        kept = np.setdiff1d(np.arange(len(everything)), test)
        data = mp.PerturbationData.from_anndata(everything.to_anndata(kept), **KEYS[options.data])
        sizes = np.bincount(data.context[data.condition > 0], minlength=len(data.contexts))
        for position in np.argsort(-sizes, kind="stable")[: options.inner]:
            inner = data.contexts[position]
            split = mp.leave_context_out(data, inner)
            controls = data.to_anndata(data.rows(condition=data.control, context=inner))
            for candidate in options.candidates:
                settings = dict(pair.split("=") for pair in candidate.split())
                started = time.monotonic()
                model = mp.models.create(options.model, preset=options.preset, **settings).fit(data, split)
                seconds = time.monotonic() - started
                for perturbation in data.perturbations:
                    truth = data.to_anndata(data.rows(condition=perturbation, context=inner))
                    predicted = model.predict(controls, perturbation)
                    scores = mp.evaluate(control=controls, truth=truth, predicted=predicted, metrics=SHOWN)
                    rows.append({"settings": candidate, "outer": outer, "inner": inner, **scores, "seconds": seconds})
                print(f"without {outer}: {inner} under {candidate!r}: {seconds:.1f} s", flush=True)
    table = pd.DataFrame(rows)
    with pd.option_context("display.width", 200):
        print(table.groupby("settings", sort=False).mean(numeric_only=True).round(3).to_string())


if __name__ == "__main__":
    main()
