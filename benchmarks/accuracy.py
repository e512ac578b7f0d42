"""How well models predict contexts they never saw perturbed: every metric between its bounds, as a study scores it.

python -m benchmarks.accuracy --models all --hold-out CD14+Mono B
python -m benchmarks.accuracy --models mtae --preset study --hold-out CD14+Mono --seeds 1 2 19193
python -m benchmarks.accuracy --models mtae scgen --hold-out B NK --seeds 1 2 --precision float32 bfloat16

Prints a row for each trial, then means beside the bounds: floor (no change), mean response (mean-shift, learnt from the
other contexts), ceiling (a replicate). Where a metric cannot tell a replicate from a guess, its row says so. Where the
data hold counts (--data simulated), the six metrics of vcc2026 and what they combine to are among them.
"""

import argparse
import itertools
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

import multipert as mp
from multipert.benchmark import BOUNDS, StudyResults
from multipert.benchmark.held_out import HeldOutCells
from multipert.benchmark.records import DatasetCard, ModelCard, Reference, TrialResult
from multipert.benchmark.results import versions
from multipert.evaluation import PROFILES, between_bounds, summarise
from multipert.evaluation.vcc2026 import COMBINED
from multipert.process import own_process
from multipert.training import PRECISIONS

KEYS: dict[str, dict[str, Any]] = {
    "kang_subset": {"perturbation_key": "condition", "control": "control", "context_key": "cell_type"},
    "mcfaline_subset": {"perturbation_key": "perturbation", "control": "control", "context_key": "cell_line"},
    "simulated": {
        "perturbation_key": "condition",
        "control": "control",
        "context_key": "cell_type",
        "counts_layer": "counts",
    },
}
WORLD: dict[str, Any] = {
    "n_genes": 500,
    "cells_per_group": 100,
    "response": 2.0,
    "context_specific": 0.5,
    "counts_per_gene": 1.0,
}
"""The simulated data: ten perturbations in four contexts, whose counts are known."""


def data_folder() -> Path:
    """Where the real cells are: ``MULTIPERT_DATA``, else ``../shared/data`` beside the project's root."""
    return Path(os.environ.get("MULTIPERT_DATA", Path(__file__).parents[2] / "shared" / "data"))


def read(name: str) -> mp.PerturbationData:
    """Read a data set, or make it."""
    if name == "simulated":
        perturbations = [f"drug{number}" for number in range(10)]
        cells = mp.simulate(contexts=["A", "B", "C", "D"], perturbations=perturbations, seed=1, **WORLD)
        return mp.PerturbationData.from_anndata(cells, **KEYS[name])
    return mp.PerturbationData.from_anndata(data_folder() / f"{name}.h5ad", **KEYS[name])


def main() -> None:
    """Fit, predict and score every trial; print a row for each, then the means."""
    own_process()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=KEYS, default="kang_subset")
    parser.add_argument("--models", nargs="+", default=["mtae"], help="names, or all")
    parser.add_argument("--preset", default="default")
    parser.add_argument("--hold-out", nargs="+", help="contexts; all by default")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=["auto"])
    parser.add_argument("--out", type=Path, help="also write the rows here, after each fit")
    options = parser.parse_args()

    data = read(options.data)
    counted = data.counts is not None
    names = mp.models.MODELS.ours if options.models == ["all"] else options.models
    contexts = options.hold_out or list(data.contexts)
    cards: dict[str, ModelCard] = {}
    trials: list[TrialResult] = []
    references: dict[tuple[str, str], Reference] = {}
    results = StudyResults(
        title=f"Accuracy on {options.data}",
        question="",
        datasets=[
            DatasetCard.of(
                data,
                name=options.data,
                source=options.data,
                published=None,
                held_out=contexts,
                perturbations=data.perturbations,
            )
        ],
        models=[],
        seeds=options.seeds,
        metrics=[*PROFILES["default"].metrics(), *([COMBINED, *PROFILES[COMBINED].metrics()] if counted else [])],
        study_file="",
        versions=versions(),
        planned=0,
        trials=trials,
        references=references,
        overviews={},
    )
    for context in contexts:
        split = mp.leave_context_out(data, context)
        cells = HeldOutCells.of(data, options.data, split.rule, data.perturbations, results.metrics)
        references[options.data, context] = cells.reference(data, split)
        for name, precision, seed in itertools.product(names, options.precision, options.seeds):
            model = mp.models.create(name, preset=options.preset, seed=seed).fit(data, split, precision=precision)
            label = name if len(options.precision) == 1 else f"{name} ({precision})"
            cards.setdefault(label, ModelCard.of(model, label))
            trials.append(cells.test(model, label))
            print(f"{label} without {context}, seed {seed}: {model.seconds_fit_:.1f} s", flush=True)
            if options.out:
                replace(results).scores.to_csv(options.out, index=False)
    print_means(replace(results, models=list(cards.values())))


def print_means(results: StudyResults) -> None:
    """Print a row for each trial, and the means of all beside the bounds, as they are and between these."""
    known = results.scores[list(results.metrics)].notna().any()
    results = replace(results, metrics=[name for name in results.metrics if known[name]])
    summary = results.summary.set_index("label")
    told = summarise(results.calibration.reorder_levels(["metric", "dataset", "held_out", "perturbation"]))
    silent = [name for name in results.metrics if name in told.index and not told.loc[name, "can_tell"]]
    bounds = {bound: summary.loc[bound, list(results.metrics)] for bound in BOUNDS}
    normalised = pd.DataFrame(
        {
            label: between_bounds(pd.DataFrame({"score": row[list(results.metrics)], **bounds}).astype(float))[
                "normalised"
            ]
            for label, row in summary.drop(index=list(BOUNDS)).iterrows()
        }
    )
    marks = {name: f"{name} (cannot tell here)" for name in silent}
    with pd.option_context("display.width", 250, "display.max_columns", 40, "display.precision", 3):
        print(results.scores[["label", "held_out", "perturbation", "seed", *results.metrics]].to_string(index=False))
        print(f"\nmeans over {results.datasets[0].held_out}")
        print(summary[[*results.metrics, "seconds_fit"]].T.rename(index=marks).to_string(float_format="%.3f"))
        print("\nnormalised: 0 at the better of floor and mean response, 1 at the ceiling")
        print(normalised.drop(index=silent).to_string(float_format="%.2f"))
        print("\ncannot tell a replicate from a guess here: " + (", ".join(silent) or "none"))


if __name__ == "__main__":
    main()
