"""Our scores beside those of pertpy and cell-eval, and our files in their hands.

Both packages are large and pin what we do not, so they live in an environment of their own; where one is absent its
tests are skipped.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from evaluation.conftest import Cells
from multipert.evaluation import evaluate, evaluate_many
from multipert.evaluation.components import principal_components


@pytest.mark.parametrize("name", ["edistance", "euclidean", "mean_pairwise", "mmd"])
def test_pertpys_compare_distance_agrees(made: Cells, name: str) -> None:
    pertpy = pytest.importorskip("pertpy", reason="pertpy is not installed: pip install pertpy 'statsmodels<0.15'")
    control, truth, predicted = principal_components([sparse.csr_array(cells.X) for cells in made])
    distance = pertpy.tl.Distance(name)
    if name == "edistance":
        # The study's is squared; pertpy 1.0 takes plain Euclidean distances.
        distance.metric_fct.cell_wise_metric = "sqeuclidean"
    theirs = distance.compare_distance(pert=truth, pred=predicted, ctrl=control)
    assert evaluate(**made.named())[name] == pytest.approx(theirs, rel=1e-5)


def test_pertpys_wasserstein_nears_ours_as_its_regularisation_falls(made: Cells) -> None:
    pytest.importorskip("pertpy", reason="pertpy is not installed: pip install pertpy 'statsmodels<0.15'")
    PointCloud = pytest.importorskip("ott.geometry.pointcloud").PointCloud
    LinearProblem = pytest.importorskip("ott.problems.linear.linear_problem").LinearProblem
    Sinkhorn = pytest.importorskip("ott.solvers.linear.sinkhorn").Sinkhorn

    control, truth, predicted = principal_components([sparse.csr_array(cells.X) for cells in made])

    def ratio(share: float) -> float:
        costs = []
        for cells in (truth, control):
            geometry = PointCloud(cells, predicted)
            geometry = PointCloud(cells, predicted, epsilon=share * float(geometry.mean_cost_matrix))
            solution = Sinkhorn(max_iterations=20_000)(LinearProblem(geometry))
            costs.append(float(np.sum(solution.matrix * geometry.cost_matrix)))
        return costs[0] / costs[1]

    ours = evaluate(**made.named())["wasserstein"]
    assert ours == pytest.approx(ratio(0.005), rel=0.05)
    assert abs(ratio(0.005) - ours) < abs(ratio(0.5) - ours)


@pytest.fixture
def several(mcfaline_path: Path, tmp_path: Path) -> dict[str, Any]:
    """True and predicted cells of several perturbations, controls among them, as cell-eval wants them."""
    cells = anndata.read_h5ad(mcfaline_path)
    cells = cells[cells.obs["cell_line"] == "A172"].copy()
    rng = np.random.default_rng(0)
    predicted = cells.copy()
    noise = rng.gamma(0.5, 0.05, size=cells.shape).astype(np.float32)
    perturbed = (cells.obs["perturbation"] != "control").to_numpy()[:, None]
    predicted.X = cells.X.toarray() + noise * perturbed
    real_path, predicted_path = tmp_path / "real.h5ad", tmp_path / "predicted.h5ad"
    cells.write_h5ad(real_path)
    predicted.write_h5ad(predicted_path)
    return {"real": cells, "predicted": predicted, "real_path": real_path, "predicted_path": predicted_path}


def test_cell_eval_takes_our_files_and_agrees_on_means(several: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("cell_eval", reason="cell-eval is not installed: pip install cell-eval")
    program = shutil.which("cell-eval", path=str(Path(sys.executable).parent))
    assert program is not None
    subprocess.run(
        [
            program, "run", "-ap", several["predicted_path"], "-ar", several["real_path"], "--control-pert", "control",
            "--pert-col", "perturbation", "--profile", "anndata", "-o", tmp_path / "out",
        ],
        check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    theirs = pd.read_csv(tmp_path / "out" / "results.csv").set_index("perturbation")
    real, predicted = several["real"], several["predicted"]
    is_control = real.obs["perturbation"] == "control"
    ours = evaluate_many(
        control=real[is_control],
        truth=real[~is_control],
        predicted=predicted[~is_control],
        perturbation_key="perturbation",
        metrics=["mse", "pearson_delta", "discrimination"],
    )
    theirs = theirs.loc[ours.index]
    np.testing.assert_allclose(ours["mse"], theirs["mse"], rtol=1e-4)
    np.testing.assert_allclose(ours["pearson_delta"], theirs["pearson_delta"], rtol=1e-4)
    # Theirs divides ranks by n and lists a perturbation's own gene; ours by n - 1.
    assert ours["discrimination"].mean() == pytest.approx(theirs["discrimination_score_l2"].mean(), abs=0.15)


def test_cells_of_other_tools_are_scored_as_they_come(several: dict[str, Any]) -> None:
    real, predicted = several["real"], several["predicted"]
    predicted.layers["counts"] = predicted.X.copy()
    predicted.obsm["X_other"] = np.zeros((predicted.n_obs, 3))
    is_control = real.obs["perturbation"] == "control"
    chosen = real.obs["perturbation"] == "TGFBR2"
    scores = evaluate(control=real[is_control], truth=real[chosen], predicted=predicted[chosen])
    assert scores.drop(["sign_deg100", "amplitude", "de_recall", "covariance_distance"]).notna().all()
