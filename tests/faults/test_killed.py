"""Killed at whatever moment: what is there is whole, and the same command ends like an undisturbed one."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file

from conftest import Run
from faults.conftest import EPOCHS, KEYS, SLOW_FIT, Start, wait_until
from multipert.benchmark import load_results
from multipert.data import read_cells


def kill(process: "subprocess.Popen[str]") -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_killed_fit_goes_on_from_its_first_epoch(run: Run, start: Start, world: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    fit = ("fit", world / "data.h5ad", *SLOW_FIT, *KEYS, "--out")
    for moment in (0.0, float(rng.uniform(0, 0.5))):
        process = start(*fit, tmp_path / "run")
        wait_until((tmp_path / "run" / "checkpoint.safetensors").exists, process)
        time.sleep(moment)
        kill(process)
        assert not (tmp_path / "run" / "model.json").exists()

    code, _, said = run(*fit, tmp_path / "run")

    assert code == 0, said
    assert run(*fit, tmp_path / "undisturbed")[0] == 0
    found, expected = (load_file(tmp_path / name / "model.safetensors") for name in ("run", "undisturbed"))
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
    history = (tmp_path / "run" / "history.csv").read_text().splitlines()
    assert len(history) == 1 + EPOCHS


def begun(folder: Path) -> bool:
    """Whether cells are being written there; an empty file is how the command finds out that it can, and goes again."""
    try:
        return any(path.stat().st_size for path in folder.glob("*.h5ad"))
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("place", ["--in-memory", "--on-disk"])
def test_a_killed_prediction_is_whole_or_not_there(
    run: Run, start: Start, world: Path, tmp_path: Path, place: str
) -> None:
    out = tmp_path / "p.h5ad"
    predict = ("predict", world / "run", "--cells", world / "controls.h5ad", "--all", "--out", out, place)
    rng = np.random.default_rng(0)
    for _ in range(3):
        process = start(*predict)
        wait_until(lambda: begun(tmp_path), process)
        time.sleep(rng.uniform(0, 0.05))
        kill(process)
        if out.exists():
            assert read_cells(out).n_obs == 80
            out.unlink()
    assert run(*predict)[0] == 0
    assert read_cells(out).n_obs == 80


def test_two_fits_into_one_folder(run: Run, start: Start, world: Path, tmp_path: Path) -> None:
    fit = ("fit", world / "data.h5ad", *SLOW_FIT, *KEYS, "--out", tmp_path / "run")
    process = start(*fit)
    wait_until((tmp_path / "run" / "checkpoint.safetensors").exists, process)
    os.killpg(process.pid, signal.SIGSTOP)

    code, _, said = run(*fit)

    assert code == 2
    assert said.strip().splitlines() == [
        f"multipert: another process is writing to {tmp_path / 'run'}: wait for it, or choose another folder"
    ]
    os.killpg(process.pid, signal.SIGCONT)
    assert process.wait() == 0
    assert (
        run("predict", tmp_path / "run", "--cells", world / "controls.h5ad", "--all", "--out", tmp_path / "p.h5ad")[0]
        == 0
    )


def test_two_predictions_into_one_file(start: Start, world: Path, tmp_path: Path) -> None:
    for ending in ("h5ad", "zarr"):
        out = tmp_path / f"p.{ending}"
        predict = ("predict", world / "run", "--cells", world / "controls.h5ad", "--all", "--out", out)
        processes = [start(*predict) for _ in range(2)]
        for process in processes:
            _, said = process.communicate()
            assert process.returncode == 0, said
        assert read_cells(out).n_obs == 80
    assert sorted(os.listdir(tmp_path)) == ["p.h5ad", "p.zarr"]


def test_two_benchmarks_into_one_folder(run: Run, start: Start, world: Path, tmp_path: Path) -> None:
    process = start("benchmark", world / "study.toml", "--out", tmp_path / "out")
    wait_until(lambda: list(tmp_path.glob("out/overviews/[!.]*.json")), process)
    os.killpg(process.pid, signal.SIGSTOP)

    code, _, said = run("benchmark", world / "study.toml", "--out", tmp_path / "out")

    assert code == 2
    assert said.strip().splitlines()[-1].startswith("multipert: another process is writing to ")
    os.killpg(process.pid, signal.SIGCONT)
    assert process.wait() == 0
    assert len(load_results(tmp_path / "out").trials) == 8


@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_ends_a_benchmark_quietly(start: Start, world: Path, tmp_path: Path, workers: str) -> None:
    out = tmp_path / "out"
    process = start("benchmark", world / "study.toml", "--out", out, "--workers", workers)
    wait_until(lambda: list(out.glob("trials/[!.]*.json")), process)

    os.killpg(process.pid, signal.SIGINT)  # the whole group, as a terminal does

    _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    lines = [line for line in said.splitlines() if line and not line.startswith(("[", "reading ", "trials: "))]
    assert lines == [f"stopped; what is done is in {out}: the same command goes on from there."]
    assert (out / "results.csv").exists()
    assert not list(out.rglob(".*"))


def test_a_killed_worker_says_nothing_and_costs_nothing(start: Start, world: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start("benchmark", world / "study.toml", "--out", out, "--workers", "2")
    wait_until(lambda: list(out.glob("trials/[!.]*.json")), process)
    family = psutil.Process(process.pid).children(recursive=True)
    workers = [child for child in family if "spawn_main" in " ".join(child.cmdline())]
    workers[-1].send_signal(signal.SIGKILL)

    _, said = process.communicate(timeout=300)

    assert process.returncode == 0, said
    assert [line for line in said.splitlines() if line and not line.startswith(("[", "reading ", "trials: "))] == []
    assert len(load_results(out).trials) == 8


def ordinary() -> tuple[str, ...]:
    """What makes a command respect permissions even if root runs the tests."""
    if os.geteuid():
        return ()
    rights = "-dac_override,-dac_read_search"
    return ("setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}")


def test_a_folder_that_is_read_only(start: Start, world: Path, tmp_path: Path) -> None:
    shut = tmp_path / "shut"
    shut.mkdir()
    shut.chmod(0o555)
    for command in (
        ("predict", world / "run", "--cells", world / "controls.h5ad", "--all", "--out", shut / "p.h5ad"),
        ("fit", world / "data.h5ad", *SLOW_FIT, *KEYS, "--out", shut / "run"),
        ("benchmark", world / "study.toml", "--out", shut / "out"),
    ):
        process = start(*command, before=ordinary())
        _, said = process.communicate()
        assert process.returncode == 2, said
        assert said.strip().splitlines()[-1].startswith("multipert: cannot write ")
        assert "Permission denied" in said
        assert "Traceback" not in said
    assert not os.listdir(shut)


@pytest.fixture
def cluster(tmp_path: Path, start: Start) -> dict[str, "subprocess.Popen[str]"]:
    """A Dask scheduler and two workers, each a process; the scheduler's address is in ``scheduler.json``."""
    at = ("--scheduler-file", tmp_path / "scheduler.json")
    apart = ("-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
    started = {"scheduler": start(*apart, *at, command=())}
    wait_until((tmp_path / "scheduler.json").exists, started["scheduler"])
    alone = ("-m", "distributed.cli.dask_worker", "--nthreads", "1", "--no-nanny", "--no-dashboard")
    folders = ("--local-directory", tmp_path / "dask")
    return started | {name: start(*alone, *folders, "--name", name, *at, command=()) for name in ("one", "two")}


def benchmark_on(folder: Path, start: Start, world: Path) -> "subprocess.Popen[str]":
    """A study given to the cluster, its first trial done."""
    address = json.loads((folder / "scheduler.json").read_text())["address"]
    process = start("benchmark", world / "study.toml", "--out", folder / "out", "--scheduler", address)
    wait_until(lambda: list(folder.glob("out/trials/[!.]*.json")), process)
    return process


@pytest.mark.slow
def test_a_killed_worker_of_a_cluster_costs_nothing(
    start: Start, world: Path, tmp_path: Path, cluster: dict[str, "subprocess.Popen[str]"]
) -> None:
    process = benchmark_on(tmp_path, start, world)
    kill(cluster["one"])

    _, said = process.communicate(timeout=300)

    assert process.returncode == 0, said
    assert "Traceback" not in said
    assert len(load_results(tmp_path / "out").trials) == 8


@pytest.mark.slow
def test_a_killed_scheduler_is_said_in_one_sentence(
    run: Run, start: Start, world: Path, tmp_path: Path, cluster: dict[str, "subprocess.Popen[str]"]
) -> None:
    process = benchmark_on(tmp_path, start, world)
    kill(cluster["scheduler"])

    _, said = process.communicate(timeout=300)

    lines = [line for line in said.splitlines() if line and not line.startswith(("[", "reading ", "trials: "))]
    assert lines == ["multipert: the Dask scheduler is gone: the same command goes on from here"]
    assert process.returncode == 2
    assert run("benchmark", world / "study.toml", "--out", tmp_path / "out")[0] == 0
    assert len(load_results(tmp_path / "out").trials) == 8
