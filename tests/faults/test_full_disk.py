"""A full disk is said in one sentence, and what was there stays as it was."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from anndata import AnnData

from conftest import Run
from faults.conftest import KEYS, SLOW_FIT
from multipert.data import read_cells, write_cells, write_text
from multipert.errors import is_disk_full

Disk = Callable[[int], Path]


@pytest.mark.parametrize("ending", [".h5ad", ".zarr", ".txt"])
def test_a_full_disk_leaves_what_was_there(full_disk: Disk, ending: str) -> None:
    disk = full_disk(600)
    path = disk / f"cells{ending}"
    rng = np.random.default_rng(0)
    small, large = (AnnData(rng.random((n, 10), dtype=np.float32)) for n in (10, 60_000))
    if ending == ".txt":
        write_text(path, "before")
    else:
        write_cells(small, path)
    before = os.listdir(disk)

    with pytest.raises(OSError, match="No space left") as error:
        write_text(path, "x" * 900_000) if ending == ".txt" else write_cells(large, path)

    assert is_disk_full(error.value)
    assert os.listdir(disk) == before
    assert path.read_text() == "before" if ending == ".txt" else read_cells(path).n_obs == 10


def commands(world: Path, out: Path) -> dict[str, tuple[str | Path, ...]]:
    """Each command that writes, and what it would write on the full disk."""
    scored = ("--control", world / "controls.h5ad", "--truth", world / "truth.h5ad")
    return {
        "preprocess": ("preprocess", world / "counts.h5ad", "--out", out / "cells.h5ad"),
        "check": ("check", world / "data.h5ad", *KEYS, "--out", out / "check.html"),
        "fit": ("fit", world / "data.h5ad", "--model", "mtcell", *KEYS, "--out", out / "run"),
        "a checkpoint": ("fit", world / "data.h5ad", *SLOW_FIT, *KEYS, "--out", out / "run"),
        "predict": ("predict", world / "run", "--cells", world / "controls.h5ad", "--all", "--out", out / "p.h5ad"),
        "predict, zarr": (
            "predict",
            world / "run",
            "--cells",
            world / "controls.h5ad",
            "--all",
            "--out",
            out / "p.zarr",
        ),
        "evaluate": ("evaluate", *scored, "--predicted", world / "predicted.h5ad", "--out", out / "scores.csv"),
        "benchmark": ("benchmark", world / "study.toml", "--out", out / "results"),
        "report": ("report", world / "run", "--data", world / "data.h5ad", "--out", out / "report.html"),
    }


@pytest.mark.parametrize(
    ("name", "left"),
    [(name, 0) for name in commands(Path(), Path())]
    # So little that a file can be begun, and not ended.
    + [(name, 4) for name in ("preprocess", "fit", "a checkpoint", "predict", "predict, zarr", "benchmark")],
)
def test_a_command_says_that_the_disk_is_full(run: Run, world: Path, full_disk: Disk, name: str, left: int) -> None:
    disk = full_disk(left)

    code, _, said = run(*commands(world, disk)[name])

    assert code == 1, said
    assert [line for line in said.splitlines() if line.startswith("multipert: ") and "note: " not in line] == [
        "multipert: the disk is full: make room, or choose another folder, and run again"
    ]
    assert "Traceback" not in said
    files = {path.relative_to(disk).as_posix() for path in disk.rglob("*") if path.is_file()}
    # Small files that were whole before the disk was full may stay: never the one that says that all is there.
    assert not [path for path in files if Path(path).name.startswith(".")]
    assert not {"cells.h5ad", "check.html", "run/model.json", "p.h5ad", "scores.csv", "report.html"} & files
    assert not (disk / "p.zarr").exists()
