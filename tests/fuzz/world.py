"""The sound inputs that everything is mutated from, and what the commands answer to them."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

import multipert as mp
from multipert.data import write_cells

KEYS: dict[str, Any] = {"perturbation_key": "condition", "control": "control", "context_key": "cell_type"}
HELD_OUT = "B"
RUNS: dict[str, dict[str, Any]] = {
    "mean-shift": {},
    "mtcell": {},
    "mtae": {"epochs": 1, "batch_size": 8, "hidden": 8, "latent": 4},
    "scgen": {"epochs": 1, "batch_size": 8, "latent": 4},
}
CELLS = ("data", "controls", "truth", "predicted", "counts", "raw")

STUDY = """
title = "A study"
question = "How are they?"
seeds = [1, 2]
preset = "default"
models = [
    { name = "mtae", epochs = 4, hidden = 16, label = "ours" },
    "mean-shift",
    { name = "linear", ridge = 0.5 },
]
metrics = ["degs", "edistance", "edist"]

[[datasets]]
name = "made"
held_out = ["A", "B"]
perturbations = ["alpha"]
[datasets.simulate]
n_genes = 40
contexts = ["A", "B", "C"]
perturbations = ["alpha", "beta"]
cells_per_group = 6
response = 1.0
seed = 3

[[datasets]]
name = "mine"
path = "data.h5ad"
perturbation_key = "condition"
control = "control"
context_key = "cell_type"

[[datasets]]
name = "counted"
path = "counts.h5ad"
perturbation_key = "condition"
control = "control"
context_key = ["cell_type"]
preprocess = { min_counts = 0, min_genes = 0, min_cells = 1, n_top_genes = 50 }
"""


@dataclass(frozen=True)
class World:
    """A folder of sound inputs: ``*.h5ad`` and ``*.zarr`` of :data:`CELLS`, ``runs/``, ``study.toml``.

    Attributes
    ----------
    folder
        Where they are.
    answers
        By run, what it predicts of the controls: (2 x cells, genes).
    """

    folder: Path
    answers: dict[str, NDArray[np.float32]]

    @classmethod
    def read(cls, folder: Path) -> "World":
        """One that was made."""
        with np.load(folder / "answers.npz") as answers:
            return cls(folder, dict(answers))

    @staticmethod
    def make(folder: Path) -> None:
        """Make one in a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        made = mp.simulate(
            n_genes=110, contexts=("A", "B", "C"), perturbations=("alpha", "beta"), cells_per_group=10, seed=3
        )
        del made.uns["truth"]
        made.var["symbol"] = pd.Categorical([f"SYM{number}" for number in range(made.n_vars)])
        counts = AnnData(made.layers["counts"], obs=made.obs, var=made.var)
        adata = mp.preprocess(counts, min_counts=0, min_genes=0, min_cells=0, n_top_genes=None)
        adata.obsm["X_pca"] = adata.X[:, :3].toarray()
        adata.uns["log1p"] = {"base": float(np.e)}
        data = mp.PerturbationData.from_anndata(adata, **KEYS)
        here = (adata.obs["cell_type"] == HELD_OUT).to_numpy()
        controls = adata[here & (adata.obs["condition"] == "control").to_numpy()].copy()
        answers = {}
        for name, changes in RUNS.items():
            model = mp.models.create(name, **changes).fit(
                data, mp.leave_context_out(data, HELD_OUT), run=folder / "runs" / name, device="cpu", progress=False
            )
            answers[name] = np.asarray(model.predict(controls, "all").X)
        truth = adata[here & (adata.obs["condition"] == "alpha").to_numpy()].copy()
        predicted = mp.models.load(folder / "runs" / "mean-shift").predict(controls, "alpha")
        raw = counts[controls.obs_names].copy()
        predicted.obs_names = [f"new{number}" for number in range(predicted.n_obs)]
        for name, cells in zip(CELLS, (adata, controls, truth, predicted, counts, raw), strict=True):
            write_cells(cells, folder / f"{name}.h5ad")
            write_cells(cells, folder / f"{name}.zarr")
            cells.write_h5ad(folder / f"{name}-plain.h5ad")  # not compressed: most of its bytes say what is where
        (folder / "study.toml").write_text(STUDY)
        np.savez(folder / "answers.npz", allow_pickle=False, **answers)

    def copy(self, name: str, to: Path) -> Path:
        """A copy of a file or folder, to be mutated."""
        source = self.folder / name
        if source.is_dir():
            shutil.rmtree(to, ignore_errors=True)
            shutil.copytree(source, to)
        else:
            to.unlink(missing_ok=True)
            shutil.copy(source, to)
            os.chmod(to, 0o644)
        return to
