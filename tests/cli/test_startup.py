"""What need not wait for torch does not."""

import subprocess
import sys
from pathlib import Path

import pytest

import multipert as mp

LOADED = """
import sys
from multipert.cli import main
sys.argv = ["multipert", *sys.argv[1:]]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print("loaded:", *sorted({name.partition(".")[0] for name in sys.modules}))
"""


def loaded_by(*arguments: str | Path) -> set[str]:
    """The packages that a command imports."""
    done = subprocess.run([sys.executable, "-c", LOADED, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("loaded:")[2].split())


@pytest.mark.parametrize(
    "arguments", [("--help",), ("fit", "--help"), ("models",), ("models", "mtae"), ("models", "scbutterfly")]
)
def test_help_and_lists_load_neither_torch_nor_anndata(arguments: tuple[str, ...]) -> None:
    assert loaded_by(*arguments).isdisjoint({"torch", "numba", "anndata", "scanpy", "sklearn", "ot", "matplotlib"})


def test_a_baseline_is_fitted_and_predicts_without_torch(tmp_path: Path) -> None:
    cells = mp.simulate(n_genes=30, contexts=("A", "B"), perturbations=("alpha",), cells_per_group=8)
    cells.write_h5ad(tmp_path / "cells.h5ad")
    cells[(cells.obs["condition"] == "control").to_numpy()].copy().write_h5ad(tmp_path / "controls.h5ad")
    keys = ("--perturbation-key", "condition", "--control", "control", "--context-key", "cell_type")
    heavy = {"torch", "numba", "scanpy", "lightning_fabric"}
    run = ("--model", "no-change", *keys, "--hold-out", "B", "--out", tmp_path / "run")
    assert loaded_by("fit", tmp_path / "cells.h5ad", *run).isdisjoint(heavy)
    given = ("--cells", tmp_path / "controls.h5ad", "--perturbation", "alpha", "--out", tmp_path / "predicted.h5ad")
    assert loaded_by("predict", tmp_path / "run", *given).isdisjoint(heavy)
