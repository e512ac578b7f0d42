"""How much sooner the default preset of MTAe is as good as the finished study preset.

    python -m benchmarks.time_to_quality --out DIR

Each of the cell types is held out in turn and trained for with both presets; every few epochs the model predicts and
is scored, the clock stopped. What is asked for is the first moment at which the means over the held-out cell types of
r2_hvg, r2_deg20, r2_deg100 and edistance are all at least as good as those of the finished study preset, and the mean
of degs is within 5 of it. The study preset's own time is when it first meets that itself.

DIR keeps a file for each preset and cell type, and a repeated call goes on from there: training for all of them takes
about twenty minutes on two quiet cores. The seconds are those of training alone, so leave the machine alone meanwhile;
steps are printed beside them, and do not depend on it.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd

import multipert as mp
from benchmarks.accuracy import KEYS, data_folder
from multipert.data import write_text
from multipert.process import own_process
from multipert.training import History

HIGHER, LOWER, WITHIN = ("r2_hvg", "r2_deg20", "r2_deg100"), ("edistance",), {"degs": 5.0}
METRICS = (*HIGHER, *LOWER, *WITHIN)


def looks(data: mp.PerturbationData, context: str, preset: str, every: int, seed: int) -> list[dict[str, Any]]:
    """Train with a preset without a context's response; look at the scores every few epochs and at the end."""
    control, truth = (data.to_anndata(data.rows(condition=name, context=context)) for name in data.conditions)
    model = mp.models.create("mtae", preset=preset, seed=seed)
    seen: list[dict[str, Any]] = []

    def look(network: object, history: History) -> None:
        epoch = len(history)
        if epoch % every == 0 or epoch == model.parameters.epochs:
            predicted = model.predict(control, data.perturbations[0])
            scores = mp.evaluate(control=control, truth=truth, predicted=predicted, metrics=METRICS)
            seen.append({"epoch": epoch, "steps": history.steps, "seconds": history.seconds, **scores})

    model.fit(data, mp.leave_context_out(data, context), device="cpu", progress=False, on_epoch=look)
    return seen


def kept(file: Path, data: mp.PerturbationData, context: str, preset: str, every: int, seed: int) -> pd.DataFrame:
    """The looks in ``file``; trained for and written there, where it does not hold them."""
    if not file.exists():
        seen = looks(data, context, preset, every, seed)
        write_text(file, json.dumps(seen, indent=1))
        print(f"{preset} without {context}: {seen[-1]['seconds']:.1f} s", flush=True)
    return pd.DataFrame(json.loads(file.read_text("utf-8")))


def means(runs: list[pd.DataFrame]) -> pd.DataFrame:
    """Scores, steps and seconds at each look, means over the held-out cell types."""
    return pd.concat(runs).groupby("epoch").mean()


def first_as_good(course: pd.DataFrame, target: pd.Series) -> pd.Series | None:
    """The first look at which every mean is at least as good as the target."""
    good = course[list(HIGHER)].ge(target[list(HIGHER)]).all(axis=1)
    good &= course[list(LOWER)].le(target[list(LOWER)]).all(axis=1)
    for metric, tolerance in WITHIN.items():
        good &= course[metric] >= target[metric] - tolerance
    return course[good].iloc[0] if good.any() else None


def main() -> int:
    """Train what is not yet trained, and print the times."""
    own_process()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where the courses are kept")
    parser.add_argument("--hold-out", nargs="+", help="cell types; all by default")
    parser.add_argument("--every", type=int, nargs=2, default=(10, 1), help="epochs between looks: study, default")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()

    options.out.mkdir(parents=True, exist_ok=True)
    data = mp.PerturbationData.from_anndata(data_folder() / "kang_subset.h5ad", **KEYS["kang_subset"])
    courses = {}
    for preset, every in zip(("study", "default"), options.every, strict=True):
        runs = []
        for context in options.hold_out or data.contexts:
            file = options.out / f"{preset}-{context.replace('/', '_')}-seed{options.seed}-every{every}.json"
            runs.append(kept(file, data, context, preset, every, options.seed))
        courses[preset] = means(runs)

    finished = courses["study"].iloc[-1]
    print("\nmeans over the held-out cell types")
    rows = {"study, finished": finished}
    for preset, course in courses.items():
        reached = first_as_good(course, finished)
        if reached is None:
            best = course[list(METRICS)].iloc[-1].round(3).to_dict()
            print(f"the {preset} preset never gets there; it ends at {best}")
            return 1
        rows[f"{preset}, first as good"] = reached
    table = pd.DataFrame(rows).T
    table.insert(0, "epoch", [row.name for row in rows.values()])
    print(table.round(3).to_string())
    for name in table.index[:2]:
        sooner = table.loc[name, ["seconds", "steps"]] / table.loc[table.index[2], ["seconds", "steps"]]
        print(f"{name} / default: {sooner['seconds']:.1f} in seconds, {sooner['steps']:.1f} in steps")
    return 0


if __name__ == "__main__":
    sys.exit(main())
