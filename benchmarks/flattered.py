"""Worthless predictions, which metrics fall for them or expose them, and what the verdict says.

- *collapsed*: every NK cell of `kang_subset` is the true mean of NK cells under interferon;
- *shuffled*: the true CD4T cells of `kang_subset`, their values exchanged between cells, gene by gene;
- *other controls*: a disjoint half of the control cells of A172 (`mcfaline_subset`) as the prediction of every
  knock-down;
- *swapped*: the true cells of A172, each knock-down's given as the prediction of the next one's.

    python -m benchmarks.flattered
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

import multipert as mp
from benchmarks.accuracy import KEYS, data_folder
from multipert.evaluation import METRICS, STUDY, between_bounds
from multipert.evaluation.trust import trust


def stimulated(cell_type: str) -> tuple[AnnData, AnnData]:
    """Control and stimulated cells of a type."""
    data = mp.PerturbationData.from_anndata(data_folder() / "kang_subset.h5ad", **KEYS["kang_subset"])
    control, truth = (data.to_anndata(data.rows(condition=name, context=cell_type)) for name in data.conditions)
    return control, truth


def knocked_down() -> tuple[AnnData, dict[str, AnnData]]:
    """Control cells of A172, and its cells under each knock-down."""
    data = mp.PerturbationData.from_anndata(data_folder() / "mcfaline_subset.h5ad", **KEYS["mcfaline_subset"])
    rows = {name: data.rows(condition=name, context="A172") for name in data.conditions}
    cells = {name: data.to_anndata(found) for name, found in rows.items() if len(found)}
    return cells.pop(data.control), cells


def replaced(cells: AnnData, X: np.ndarray) -> AnnData:
    """Cells of other values."""
    other = cells.copy()
    other.X = X.astype(np.float32)
    return other


def collapsed() -> dict[str, Any]:
    """Every NK cell predicted to be the true mean."""
    control, truth = stimulated("NK")
    mean = np.asarray(truth.X.mean(axis=0))
    return {"control": control, "truth": truth, "predicted": replaced(truth, np.tile(mean, (truth.n_obs, 1)))}


def shuffled() -> dict[str, Any]:
    """The true CD4T cells, each gene's values exchanged between cells."""
    control, truth = stimulated("CD4T")
    X = np.random.default_rng(0).permuted(truth.X.toarray(), axis=0)
    return {"control": control, "truth": truth, "predicted": replaced(truth, X)}


def other_controls() -> dict[str, Any]:
    """A half of the control cells as the prediction of every knock-down, scored with the other half."""
    control, truth = knocked_down()
    order = np.random.default_rng(0).permutation(control.n_obs)
    half, other = control[order[::2]].copy(), control[order[1::2]].copy()
    return {"control": half, "truth": truth, "predicted": dict.fromkeys(truth, other)}


def swapped() -> dict[str, Any]:
    """The true cells of each knock-down as the prediction of the next one."""
    control, truth = knocked_down()
    names = list(truth)
    predicted = {name: truth[names[place - 1]] for place, name in enumerate(names)}
    return {"control": control, "truth": truth, "predicted": predicted}


CASES: Mapping[str, Callable[[], dict[str, Any]]] = {
    "collapsed (kang_subset, NK)": collapsed,
    "shuffled gene by gene (kang_subset, CD4T)": shuffled,
    "other control cells (mcfaline_subset, A172)": other_controls,
    "swapped (mcfaline_subset, A172)": swapped,
}


def main() -> None:
    """Print, for each prediction, the scores between their bounds, and what exposes it."""
    for name, case in CASES.items():
        whole = mp.scorecard(**case())
        card = whole if whole.index.nlevels == 1 else _means(whole)
        columns = ["score", "floor", "ceiling", "normalised", "worse_than_doing_nothing"]
        with pd.option_context("display.width", 160, "display.precision", 3):
            print(f"\n{name}\n{card[columns].to_string()}")
        print(f"worse than doing nothing: {', '.join(card.index[card['worse_than_doing_nothing'].fillna(False)])}")
        beyond = [one for one in card.index if _reaches_ceiling(str(one), card)]
        print(f"as good as a replicate, or better: {', '.join(beyond)}")
        print(f"of the study's nine: {sum(one in STUDY for one in beyond)}")
        said = trust(whole)
        print(f"verdict: {said.answer} {said.because}")
        for aspect in said.aspects:
            print(f"  {aspect.name}: {aspect.text}")


def _means(card: pd.DataFrame) -> pd.DataFrame:
    """Means over perturbations of scores and bounds, and what the bounds make of them."""
    ends = ["score", "floor", "mean_response", "ceiling"]
    return between_bounds(card[ends].groupby(level="metric", sort=False).mean())


def _reaches_ceiling(name: str, card: pd.DataFrame) -> bool:
    score, ceiling = METRICS[name].shortfall(card.loc[name, ["score", "ceiling"]].to_numpy(dtype=np.float64))
    return bool(score <= ceiling)


if __name__ == "__main__":
    main()
