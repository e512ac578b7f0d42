"""How often intervals hold the true mean of a gene, and what a pilot of a few perturbed cells is worth.

python -m benchmarks.intervals                          # coverage of mtcell's 90 % intervals, all data sets
python -m benchmarks.intervals --pilot                  # pilot size against the error of the mean, all data sets
python -m benchmarks.intervals --pilot --metrics all --data kang_subset    # and against every metric

Every context is held out in turn. Coverage is the share of genes, seen in the true cells or predicted, whose true mean
lies inside: over all of them, over the 100 that are predicted to respond most, and over the 100 that truly do. These,
chosen by the truth, are among the ones that a prediction falls short of: the last column is the coverage of theirs if
intervals were right, the 100 that respond most in truths drawn from the intervals' own distribution.

A pilot is drawn from the true cells, and all sizes are scored with the same others: a half of the true cells, at most
50, is never scored. ``alone`` moves the control cells to the pilot's own mean, ``together`` is mtcell told of it,
and ``pilot 0`` mtcell without one. ``error`` is the squared error of the mean over that of no change, the truth's
sampling noise taken off both: median over contexts and draws, as some have hardly a response.
"""

import argparse
import warnings
from collections.abc import Iterator

import numpy as np
import pandas as pd
from anndata import AnnData

import multipert as mp
from benchmarks.split import DATA
from multipert.errors import InputWarning
from multipert.models.cells import keep
from multipert.models.mtcell import MTCell
from multipert.models.posterior import PRIOR_WEIGHT, half_width
from multipert.process import own_process

TOP = 100
DRAWN = 20
"""Truths drawn."""
SIZES = (0, 5, 10, 20, 50)
LEAST = 1e-3
"""Mean expression from which a gene counts as seen."""


def held_out(data: mp.PerturbationData) -> Iterator[tuple[MTCell, AnnData, dict[str, AnnData]]]:
    """For every context: a model that did not see it perturbed, its control cells, and its true cells."""
    for context in data.contexts:
        rows = {name: data.rows(condition=name, context=context) for name in data.conditions}
        cells = {name: data.to_anndata(members) for name, members in rows.items() if len(members) >= 20}
        control = cells.pop(data.control, None)
        if control is not None and cells:
            yield MTCell().fit(data, mp.leave_context_out(data, context)), control, cells


def mean_of(cells: AnnData) -> np.ndarray:
    """Mean of each gene."""
    return np.asarray(cells.X.mean(axis=0), dtype=np.float64).ravel()


def coverage(data: mp.PerturbationData, level: float) -> pd.DataFrame:
    """Share of true means inside, a row for each context and perturbation."""
    found = []
    for model, control, truth in held_out(data):
        before = mean_of(control)
        for name, cells in truth.items():
            predicted = model.predict(control, name, intervals=level)
            low, high = (predicted.varm[end][name].to_numpy() for end in ("mean_low", "mean_high"))
            true, guess = mean_of(cells), mean_of(predicted)
            inside = (low <= true) & (true <= high)
            responding = {"predicted": np.abs(guess - before), "true": np.abs(true - before)}
            chosen = {f"{TOP} {which} to respond": np.argsort(-size)[:TOP] for which, size in responding.items()}
            chosen = {"all genes": np.flatnonzero((true > LEAST) | (guess > LEAST)), **chosen}
            held = {what: inside[genes].mean() for what, genes in chosen.items()}
            known = int(model.learnt_["mean_left_out"][data.conditions.index(name)])
            held[f"{TOP} true if right"] = were_it_right(before, guess, high - guess, known, level)
            found.append(held)
    return pd.DataFrame(found)


def were_it_right(before: np.ndarray, guess: np.ndarray, width: np.ndarray, contexts: int, level: float) -> float:
    """Coverage of the genes that respond most in truths drawn from the distribution that intervals are of."""
    rng, held = np.random.default_rng(0), []
    scale = width / half_width(np.ones(1), contexts, level)
    for _ in range(DRAWN):
        true = np.maximum(guess + scale * rng.standard_t(contexts + PRIOR_WEIGHT, len(guess)), 0)
        responding = np.argsort(-np.abs(true - before))[:TOP]
        held.append((np.abs(true - guess) <= width)[responding].mean())
    return float(np.mean(held))


def moved(control: AnnData, pilot: AnnData) -> AnnData:
    """Control cells moved to the mean of a pilot: what it says by itself."""
    cells = control.copy()
    cells.X = keep(control.X, mean_of(pilot), np.random.default_rng(0))
    return cells


def relative_error(control: AnnData, truth: AnnData, predicted: AnnData) -> float:
    """Squared error of the mean over that of no change, the sampling noise of the truth taken off both."""
    true = mean_of(truth)
    square = np.asarray(truth.X.multiply(truth.X).mean(axis=0)).ravel()
    noise = np.maximum(square - true**2, 0).sum() / (truth.n_obs - 1)
    missed, response = (((mean_of(cells) - true) ** 2).sum() - noise for cells in (predicted, control))
    return float(missed / max(response, noise))


def pilots(data: mp.PerturbationData, metrics: list[str] | None, draws: int) -> pd.DataFrame:
    """Scores of predictions with pilots of every size, and of pilots alone."""
    found = []
    for model, control, truth in held_out(data):
        for name, cells in truth.items():
            for draw in range(draws):
                order = np.random.default_rng(draw).permutation(cells.n_obs)
                kept = min(max(SIZES), cells.n_obs // 2)
                rest = cells[np.sort(order[kept:])].copy()
                for size in (size for size in SIZES if size <= kept):
                    pilot = cells[order[:size]].copy()
                    ways = {"together": model.predict(control, name, pilot=pilot if size else None)}
                    if size:
                        ways["alone"] = moved(control, pilot)
                    for way, predicted in ways.items():
                        scores = {"error": relative_error(control, rest, predicted)}
                        if metrics != []:
                            scores |= mp.evaluate(control=control, truth=rest, predicted=predicted, metrics=metrics)
                        found.append({"way": way, "pilot": size, **scores})
    return pd.DataFrame(found)


def main() -> None:
    """Print the tables asked for."""
    own_process()
    warnings.simplefilter("ignore", InputWarning)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA), metavar="NAME")
    parser.add_argument("--level", type=float, default=0.9)
    parser.add_argument("--pilot", action="store_true", help="what a pilot is worth")
    parser.add_argument("--metrics", nargs="*", default=[], help="of the pilots, beside the error: names, or all")
    parser.add_argument("--draws", type=int, default=3, help="of a pilot")
    options = parser.parse_args()
    metrics = None if options.metrics == ["all"] else options.metrics

    tables = {}
    for name in options.data:
        data = DATA[name]()
        with pd.option_context("display.width", 200, "display.max_columns", 40, "display.precision", 3):
            if options.pilot:
                table = pilots(data, metrics, options.draws).groupby(["way", "pilot"], sort=False).median()
                print(f"\n{name}\n{table.sort_index(ascending=[False, True]).T.to_string()}", flush=True)
            else:
                tables[name] = coverage(data, options.level).mean()
    if tables:
        print(pd.DataFrame(tables).T.round(3).to_string())


if __name__ == "__main__":
    main()
