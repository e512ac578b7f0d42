"""Time the study's nine metrics beside the usual way: scanpy's rankings, pandas' resamples, pertpy's distances.

    python benchmarks/evaluation.py [--cells 200] [--repeats 7] [--data kang_subset.h5ad]

Both score the same control, true and predicted cells, in one process, on one machine, imports left out. The first call
of each compiles (numba, JAX) and imports what is only imported when needed. "New sizes" are turns with fewer cells each
time, as in a study, where hardly two sets of cells are of one size: JAX compiles for each size anew. "Same again" is to
score the same cells once more, which spares the usual way that. pertpy has to be installed beside multipert (it asks
for ``statsmodels<0.15``).
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from multipert.evaluation import STUDY, evaluate

Cells = tuple[Any, Any, Any]
Way = Callable[[Any, Any, Any], dict[str, float]]
DATA = Path(os.environ.get("MULTIPERT_DATA", Path(__file__).parents[2] / "shared" / "data")) / "kang_subset.h5ad"


def draw_cells(path: Path, n: int) -> Cells:
    """Draw control, true and, as a prediction, noisy true cells; made ones where the file is absent."""
    rng = np.random.default_rng(0)
    if path.is_file():
        cells = anndata.read_h5ad(path)
        stimulated = (cells.obs["condition"] == "stimulated").to_numpy()
        pools = [cells[~stimulated], cells[stimulated], cells[stimulated]]
    else:
        rates = rng.gamma(0.1, 0.5, size=7_000)
        moved = rates * np.where(rng.random(7_000) < 0.02, 4, 1)
        pools = [
            anndata.AnnData(sparse.csr_matrix(np.log1p(rng.poisson(rate, size=(2 * n, 7_000))).astype(np.float32)))
            for rate in (rates, moved, moved)
        ]
    control, truth, predicted = (pool[rng.choice(pool.n_obs, n, replace=n > pool.n_obs)].copy() for pool in pools)
    noise = rng.gamma(0.5, 0.01, size=predicted.shape)
    predicted.X = (predicted.X.toarray() + noise).astype(np.float32)
    for role, part in zip(("control", "truth", "predicted"), (control, truth, predicted), strict=True):
        part.obs_names = [f"{role}-{i}" for i in range(n)]
    return control, truth, predicted


def usual_way(control: Any, truth: Any, predicted: Any) -> dict[str, float]:
    """Score the study's nine with scanpy, pandas and pertpy."""
    import pertpy
    import scanpy

    def top(group: Any, method: str, n: int) -> list[str]:
        dense = {"group": group.to_df(), "control": control.to_df()}
        both = anndata.AnnData(pd.concat(list(dense.values())))
        both.obs["of"] = pd.Categorical(np.repeat(list(dense), [len(frame) for frame in dense.values()]))
        scanpy.tl.rank_genes_groups(both, "of", groups=["group"], reference="control", method=method)
        return list(scanpy.get.rank_genes_groups_df(both, "group")["names"][:n])

    def r2(genes: list[str] | slice) -> float:
        true, guessed = truth.to_df().loc[:, genes], predicted.to_df().loc[:, genes]
        values = []
        for i in range(100):
            a, b = (frame.sample(frac=0.8, random_state=i).mean(axis=0) for frame in (true, guessed))
            values.append(np.corrcoef(a, b)[0, 1] ** 2)
        return float(np.mean(values))

    responding = top(truth, "wilcoxon", 100)
    scores = {
        "degs": float(len(set(top(truth, "t-test", 100)) & set(top(predicted, "t-test", 100)))),
        "r2_hvg": r2(slice(None)),
        "r2_deg20": r2(responding[:20]),
        "r2_deg100": r2(responding),
    }
    together = anndata.AnnData(pd.concat([part.to_df() for part in (control, truth, predicted)]))
    scanpy.pp.pca(together)
    c, t, p = np.split(together.obsm["X_pca"], np.cumsum([control.n_obs, truth.n_obs]))
    for name in ("edistance", "wasserstein", "euclidean", "mean_pairwise", "mmd"):
        distance = pertpy.tl.Distance(name)
        if name == "edistance":  # the study's is squared; pertpy 1.0 changed to plain Euclidean
            distance.metric_fct.cell_wise_metric = "sqeuclidean"
        scores[name] = float(distance.compare_distance(pert=t, pred=p, ctrl=c))
    return scores


def side_by_side(ways: Sequence[Way], turns: Sequence[Cells], *, twice: bool) -> list[list[float]]:
    """Run all ways in turn: the seconds that each took for every turn's cells.

    In turn, so that whatever else the machine does meets them alike. Neither pays for the other: a pause lets the
    other's threads come to rest, and where a turn is run ``twice`` the second time counts.
    """
    times: list[list[float]] = [[] for _ in ways]
    for cells in turns:
        for way, taken in zip(ways, times, strict=True):
            time.sleep(1)
            for _ in range(1 + twice):
                start = time.perf_counter()
                way(*cells)
                took = time.perf_counter() - start
            taken.append(took)
    return times


def main() -> int:
    """Print both ways side by side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=200, help="cells in each of the three populations")
    parser.add_argument("--repeats", type=int, default=7, help="timed runs after the first")
    parser.add_argument("--data", type=Path, default=DATA, help="kang_subset.h5ad; made cells where it is absent")
    arguments = parser.parse_args()
    try:
        import pertpy  # noqa: F401
        import scanpy  # noqa: F401
    except ImportError as error:
        print(f"{error}: install what is compared with, pip install pertpy 'statsmodels<0.15'", file=sys.stderr)
        return 2
    warnings.simplefilter("ignore")
    cells = draw_cells(arguments.data, arguments.cells)
    ways: list[Way] = [
        lambda control, truth, predicted: dict(
            evaluate(control=control, truth=truth, predicted=predicted, metrics=STUDY)
        ),
        usual_way,
    ]
    first = side_by_side(ways, [cells], twice=False)
    again = side_by_side(ways, [cells] * arguments.repeats, twice=True)
    fewer = [
        tuple(part[: part.n_obs - turn - i].copy() for i, part in enumerate(cells)) for turn in range(arguments.repeats)
    ]
    sizes = side_by_side(ways, fewer, twice=False)
    ours, theirs = (way(*cells) for way in ways)
    print(f"{arguments.cells} control + true + predicted cells x {cells[1].n_vars} genes, {os.cpu_count()} processors")
    print(f"{'':14}{'multipert':>12}{'usual way':>12}{'difference':>14}")
    for name in STUDY:
        print(
            f"{name:14}{ours[name]:12.6g}{theirs[name]:12.6g}{abs(ours[name] - theirs[name]) / abs(theirs[name]):14.1e}"
        )
    same = [name for name in STUDY if name != "wasserstein"]
    largest = max(abs(ours[name] - theirs[name]) / abs(theirs[name]) for name in same)
    seconds = {
        "first call": first,
        "new sizes": sizes,
        "same again": again,
        "... fastest": [[min(taken)] for taken in again],
    }
    for name, times in seconds.items():
        own, other = map(statistics.median, times)
        print(f"{name + ', s':14}{own:12.3f}{other:12.3f}   ratio {other / own:.1f}")
    print(f"largest relative difference {largest:.1e} (wasserstein apart: exact here, entropic in pertpy)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
