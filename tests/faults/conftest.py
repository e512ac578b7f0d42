"""A small world on disk, commands in processes that can be killed, and a disk that is full."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import multipert as mp
from multipert.data import write_cells

KEYS = ("--perturbation-key", "condition", "--control", "control", "--context-key", "cell_type")
KNOWN: dict[str, Any] = {"perturbation_key": "condition", "control": "control", "context_key": "cell_type"}
OURS = ("-c", "from multipert.cli import main; main()")
EPOCHS = 60
SLOW_FIT = ("--model", "mtae", "--hold-out", "B", "--epochs", str(EPOCHS), "--set", "batch_size=8", "--set", "latent=4")

STUDY = """
seeds = [1, 2]
models = [{ name = "mtae", epochs = 10, hidden = 16, latent = 8, batch_size = 8 }, "mean-shift"]
metrics = ["edist", "mse"]

[[datasets]]
name = "made"
simulate = { n_genes = 60, contexts = ["A", "B"], perturbations = ["alpha"], cells_per_group = 20 }
"""


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a ``run``, a ``study.toml`` and cells (h5ad): see what it writes."""
    folder = tmp_path_factory.mktemp("world")
    adata = mp.simulate(n_genes=120, contexts=("A", "B"), perturbations=("alpha", "beta"), cells_per_group=40)
    data = mp.PerturbationData.from_anndata(adata, **KNOWN)
    model = mp.models.create("mean-shift").fit(data, mp.leave_context_out(data, "B"), run=folder / "run")
    here = adata[adata.obs["cell_type"] == "B"]
    controls, truth = (here[here.obs["condition"] == one].copy() for one in ("control", "alpha"))
    for name, cells in {
        "data": adata,
        "controls": controls,
        "truth": truth,
        "predicted": model.predict(controls, "alpha"),
    }.items():
        write_cells(cells, folder / f"{name}.h5ad")
    adata.X = adata.layers.pop("counts")
    write_cells(adata, folder / "counts.h5ad")
    (folder / "study.toml").write_text(STUDY)
    return folder


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the command, or another of Python, in a process group of its own; what is left is killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def begin(
        *arguments: str | Path, before: tuple[str, ...] = (), command: tuple[str, ...] = OURS
    ) -> "subprocess.Popen[str]":
        whole = [*before, sys.executable, *command, *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(whole, start_new_session=True, **pipes)  # type: ignore[call-overload]
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_until(happened: Callable[[], object], process: "subprocess.Popen[str]", seconds: float = 300) -> None:
    """Wait for something that a process does; fail if it ends before."""
    deadline = time.monotonic() + seconds
    while not happened():
        if process.poll() is not None:
            pytest.fail(f"it ended early: {process.communicate()}")
        assert time.monotonic() < deadline, "it is stuck"
        time.sleep(0.002)


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a disk with so many kilobytes left on it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root can mount a small disk")

    def fill(left: int) -> Path:
        (folder / "filler").write_bytes(bytes((4096 - left) * 1024))
        return folder

    yield fill
    subprocess.run(["umount", folder], check=True)
