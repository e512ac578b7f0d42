"""Two worthless predictions, and which metrics fall for them.

The collapsed one gives every cell the true mean of NK cells under interferon; the shuffled one swaps the true cells of
A172 among the knock-downs. Both are scored between floor and ceiling, on the real cells that `docs/metrics.md` names.

    python -m benchmarks.flattered
"""

import numpy as np
import pandas as pd

import multipert as mp
from benchmarks.accuracy import KEYS, data_folder
from multipert.evaluation import METRICS, STUDY, evaluate_many, scorecard


def collapsed() -> pd.DataFrame:
    """Every NK cell predicted to be the true mean."""
    data = mp.PerturbationData.from_anndata(data_folder() / "kang_subset.h5ad", **KEYS["kang_subset"])
    control, truth = (data.to_anndata(data.rows(condition=name, context="NK")) for name in data.conditions)
    predicted = truth.copy()
    predicted.X = np.tile(np.asarray(truth.X.mean(axis=0)), (truth.n_obs, 1)).astype(np.float32)
    return scorecard(control=control, truth=truth, predicted=predicted)


def shuffled() -> pd.DataFrame:
    """The true cells of A172, each knock-down's given as the prediction of the next one's."""
    data = mp.PerturbationData.from_anndata(data_folder() / "mcfaline_subset.h5ad", **KEYS["mcfaline_subset"])
    control = data.to_anndata(data.rows(condition=data.control, context="A172"))
    truth = data.to_anndata(np.setdiff1d(data.rows(context="A172"), data.rows(condition=data.control)))
    swapped = truth.copy()
    following = dict(zip(data.perturbations, np.roll(data.perturbations, 1), strict=True))
    swapped.obs["perturbation"] = truth.obs["perturbation"].astype(str).map(following)
    scores = {
        name: evaluate_many(control=control, truth=truth, predicted=cells, perturbation_key="perturbation").mean()
        for name, cells in (("right", truth), ("shuffled", swapped))
    }
    return pd.DataFrame(scores)


def main() -> None:
    """Print both tables."""
    card = collapsed()
    beyond = []
    for name in STUDY:
        score, ceiling = METRICS[name].shortfall(card.loc[name, ["score", "ceiling"]].to_numpy(dtype=np.float64))
        if score <= ceiling:
            beyond.append(name)
    with pd.option_context("display.width", 160, "display.precision", 3):
        print("every cell the true mean (kang_subset, NK)")
        print(card[["score", "floor", "ceiling", "worse_than_doing_nothing"]].to_string())
        print(f"\nof the study's nine, as good as the ceiling or better: {', '.join(beyond)}")
        print(f"worse than doing nothing: {', '.join(card.index[card['worse_than_doing_nothing'].fillna(False)])}")
        print("\nperturbations swapped (mcfaline_subset, A172), mean over knock-downs")
        print(shuffled().to_string())


if __name__ == "__main__":
    main()
