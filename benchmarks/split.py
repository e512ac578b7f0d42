"""How near predictions come when they share no noise with the control cells that they are scored with.

Every context is held out in turn. Its control cells are halved at random; what is predicted from one half is scored
with the other as the controls, both ways round. That is done for several halvings and seeds, and their mean is the
score of a (context, perturbation), a *trial*.

python -m benchmarks.split                                      # edist, all data sets, baselines and mtcell
python -m benchmarks.split --data kang_subset --metrics all     # all metrics
python -m benchmarks.split --data mcfaline_subset --trials      # each trial against no change, with its noise
python -m benchmarks.split --data kang_subset --models mtae mtcell --cells model keep   # means put on control cells

Printed are means over trials; and, against every other model, the mean difference of mtcell with its standard error
over contexts. With ``--trials`` each trial has the difference of mtcell to no change, and its noise: half the root mean
square difference between disjoint halves of the true cells (each with another half of the controls).
"""

import argparse
import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import anndata
import numpy as np
import pandas as pd
from anndata import AnnData

import multipert as mp
from benchmarks.accuracy import KEYS, data_folder
from multipert.errors import InputWarning
from multipert.evaluation import METRICS
from multipert.process import own_process

MODEL, NOTHING = "mtcell", "no-change"
MODELS = (NOTHING, "mean-shift", "nearest-context", "linear", "resample", MODEL)
SIMULATED: dict[str, Any] = {"perturbation_key": "condition", "control": "control", "context_key": "cell_type"}


def real(name: str) -> mp.PerturbationData:
    """Log-normalised cells of a file."""
    return mp.PerturbationData.from_anndata(data_folder() / f"{name}.h5ad", **KEYS[name])


def tal1(*, replicates: bool) -> mp.PerturbationData:
    """Tal1 knock-out: its two cell types (one to learn from), or these in each of two replicates."""
    cells = anndata.read_h5ad(data_folder() / "tal1_counts.h5ad")
    cells = mp.preprocess(cells, min_counts=0, min_genes=0, min_cells=0, n_top_genes=None)
    cells.obs["replicate"] = cells.obs["sample"].astype(int) % 2  # samples 1 and 3, 2 and 4
    context = ["cell_type", "replicate"] if replicates else "cell_type"
    return mp.PerturbationData.from_anndata(
        cells, perturbation_key="condition", control="host_wt", context_key=context, counts_layer="counts"
    )


def simulated(**world: object) -> mp.PerturbationData:
    """Cells of a simulated world."""
    return mp.PerturbationData.from_anndata(mp.simulate(**world), **SIMULATED)  # type: ignore[arg-type]


DATA: Mapping[str, Callable[[], mp.PerturbationData]] = {
    "kang_subset": lambda: real("kang_subset"),
    "mcfaline_subset": lambda: real("mcfaline_subset"),
    "tal1_counts": lambda: tal1(replicates=False),
    "tal1_counts, replicates": lambda: tal1(replicates=True),
    "simulated": lambda: simulated(seed=101),
    "simulated, weak": lambda: simulated(response=0.4, seed=102),
    "simulated, two contexts": lambda: simulated(contexts=("A", "B"), seed=103),
    "simulated, contexts differ": lambda: simulated(context_specific=1.0, seed=104),
    "simulated, doses": lambda: simulated(perturbations=("alpha", "beta"), doses=(0.1, 0.3, 1, 3, 10), seed=105),
    "simulated, donors": lambda: simulated(donors=("p1", "p2", "p3"), cells_per_group=150, seed=106),
}


def halves(cells: AnnData, seed: int) -> tuple[AnnData, AnnData]:
    """Disjoint random halves."""
    order = np.random.default_rng(seed).permutation(cells.n_obs)
    first, second = np.sort(order[::2]), np.sort(order[1::2])
    return cells[first].copy(), cells[second].copy()


def crossed(control: AnnData, halving: int) -> Iterator[tuple[AnnData, AnnData]]:
    """What is predicted from, and what is scored with: both ways round."""
    first, second = halves(control, halving)
    yield first, second
    yield second, first


def trials(
    data: mp.PerturbationData,
    models: Sequence[str],
    metrics: Sequence[str] | None,
    seeds: int,
    halvings: int,
    *,
    cells: Sequence[Literal["model", "keep"]] = ("model",),
    hold_out: Sequence[str] | None = None,
    halve_truth: bool = False,
) -> pd.DataFrame:
    """Score every trial: a row for each model, context, perturbation, seed, halving and way round."""
    found = []
    for context in hold_out or data.contexts:
        rows = {name: data.rows(condition=name, context=context) for name in data.conditions}
        true = {name: data.to_anndata(members) for name, members in rows.items() if len(members) > 3}
        control = true.pop(data.control, None)
        if control is None or not true:
            continue
        split = mp.leave_context_out(data, context)
        for name in models:
            for seed in range(1, seeds + 1):
                model = mp.models.create(name, seed=seed).fit(data, split)
                for halving, kind in itertools.product(range(halvings), cells):
                    for way, (given, kept) in enumerate(crossed(control, halving)):
                        truth = {p: halves(one, halving)[way] if halve_truth else one for p, one in true.items()}
                        predicted = {p: model.predict(given, p, cells=kind) for p in truth}
                        scores = mp.evaluate_many(control=kept, truth=truth, predicted=predicted, metrics=metrics)
                        label = name if kind == "model" else f"{name}, cells kept"
                        where: dict[str, Any] = {
                            "model": label,
                            "context": context,
                            "seed": seed,
                            "halving": halving,
                            "way": way,
                        }
                        found.append(scores.reset_index().assign(**where))
    return pd.concat(found, ignore_index=True)


def means(table: pd.DataFrame) -> pd.DataFrame:
    """Mean scores, models x metrics."""
    return table.drop(columns=["seed", "halving", "way"]).groupby("model", sort=False).mean(numeric_only=True)


def differences(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """By how much mtcell falls short of every other model (negative: it is better), paired over contexts."""
    short = table.assign(short=METRICS[metric].shortfall(table[metric].to_numpy(dtype=np.float64)))
    by_context = short.groupby(["context", "model"], sort=False)["short"].mean().unstack("model")
    apart = -by_context.drop(columns=MODEL).sub(by_context[MODEL], axis=0)
    n = apart.notna().sum()
    columns = {"difference": apart.mean(), "error": apart.std() / np.sqrt(n), "better in": (apart < 0).sum(), "of": n}
    return pd.DataFrame(columns)


def against_nothing(data: mp.PerturbationData, seeds: int, halvings: int) -> pd.DataFrame:
    """The difference in edist of mtcell to no change in every trial, and its noise."""
    trial, one = ["context", "perturbation"], ["context", "perturbation", "seed", "halving"]
    apart = {}
    for halve_truth in (False, True):
        table = trials(data, (NOTHING, MODEL), ["edist"], seeds, halvings, halve_truth=halve_truth)
        wide = table.set_index([*one, "way", "model"])["edist"].unstack("model")
        apart[halve_truth] = wide[MODEL] - wide[NOTHING]
    ways = apart[True].unstack("way")
    noise = (((ways[0] - ways[1]) / 2) ** 2).groupby(trial, sort=False).mean() ** 0.5
    found = pd.DataFrame({"difference": apart[False].groupby(trial, sort=False).mean(), "noise": noise})
    return found.assign(**{"in noises": found["difference"] / found["noise"]})


def main() -> None:
    """Print the scores asked for."""
    own_process()
    warnings.simplefilter("ignore", InputWarning)  # mtcell's doubts, once for each of thousands of predictions
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA), metavar="NAME")
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--metrics", nargs="+", default=["edist"], help="names, or all")
    parser.add_argument("--hold-out", nargs="+", help="contexts; all by default")
    parser.add_argument("--cells", nargs="+", default=["model"], choices=("model", "keep"), help="see Model.predict")
    parser.add_argument("--halvings", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--trials", action="store_true", help="each trial against no change")
    parser.add_argument("--out", type=Path, help="also write all rows here")
    options = parser.parse_args()
    metrics = None if options.metrics == ["all"] else options.metrics

    every = []
    for name in options.data:
        data = DATA[name]()
        print(f"\n## {name}: {data}", flush=True)
        with pd.option_context("display.width", 250, "display.max_columns", 40, "display.precision", 3):
            if options.trials:
                found = against_nothing(data, options.seeds, options.halvings)
                print(found.to_string())
                print(f"beyond twice the noise: {(found['in noises'] > 2).sum()} worse, of {len(found)} trials")
                continue
            table = trials(
                data,
                options.models,
                metrics,
                options.seeds,
                options.halvings,
                cells=options.cells,
                hold_out=options.hold_out,
            )
            every.append(table.assign(data=name))
            print(means(table).T.to_string())
            if MODEL in options.models and "edist" in table:
                print(f"\n{MODEL} less others, edist\n{differences(table, 'edist').to_string()}")
    if options.out and every:
        pd.concat(every).to_csv(options.out, index=False)


if __name__ == "__main__":
    main()
