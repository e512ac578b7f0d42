"""The engines: what is done is done once, whatever dies, and the numbers do not depend on who made them."""

import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest

from benchmark.conftest import STUDY, outcomes
from conftest import Run
from multipert.benchmark import load_results, plan_study, read_study
from multipert.benchmark.engine import attempt_together, grouped, on_gpu, spread
from multipert.benchmark.jobs import FitJob, Job
from multipert.benchmark.records import TrialResult

N_TRIALS = 3 * 3 * 2


def start(study: Path, out: Path, *options: str) -> "subprocess.Popen[bytes]":
    command = [
        sys.executable,
        "-c",
        "from multipert.cli import main; main()",
        "benchmark",
        str(study),
        "--out",
        str(out),
    ]
    return subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def trials_on_disk(out: Path) -> int:
    return len(list(out.glob("trials/[!.]*.json")))


def wait_for_trials(process: "subprocess.Popen[bytes]", out: Path, number: int) -> None:
    """Wait until a run has so many trials on disk; fail if it ends before."""
    deadline = time.monotonic() + 120
    while trials_on_disk(out) < number:
        assert process.poll() is None, "the run ended early"
        assert time.monotonic() < deadline, "the run is stuck"
        time.sleep(0.005)


def same(first: Any, second: Any) -> None:
    """Compare nested results, NaN equal to NaN, floats to what reordered sums may change."""
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            same(first[key], second[key])
    elif isinstance(first, list | tuple):
        assert len(first) == len(second)
        for a, b in zip(first, second, strict=True):
            same(a, b)
    elif isinstance(first, float):
        np.testing.assert_allclose(first, second, rtol=1e-6, atol=1e-9)
    else:
        assert first == second


def test_tables_hold_a_row_for_each_trial_and_perturbation(undisturbed: Path) -> None:
    table = pd.read_csv(undisturbed / "results.csv")
    assert len(table) == N_TRIALS * 2
    names = ["dataset", "label", "model", "preset", "held_out", "unseen", "perturbation", "seed"]
    metrics = ["degs", "r2_hvg", "edistance", "edist", "discrimination"]
    costs = ["seconds_fit", "seconds_predict", "peak_memory_mb", "n_parameters", "steps"]
    assert list(table.columns) == names + metrics + costs
    assert not table[["degs", "r2_hvg", "edist", "discrimination"]].isna().any(axis=None)
    assert (table.loc[table["model"] == "mtae", "peak_memory_mb"] > 100).all()
    pd.testing.assert_frame_equal(pd.read_parquet(undisturbed / "results.parquet"), load_results(undisturbed).scores)


def test_the_summary_is_the_mean_of_the_rows_beside_floor_and_ceiling(undisturbed: Path) -> None:
    rows, summary = (pd.read_csv(undisturbed / name) for name in ("results.csv", "summary.csv"))
    assert list(summary["label"]) == ["mtae", "mtvae", "mean-shift", "floor", "mean_response", "ceiling"]
    mtae = summary.set_index("label").loc["mtae"]
    of_mtae = rows[rows["label"] == "mtae"]
    assert mtae["edist"] == pytest.approx(of_mtae["edist"].mean())
    assert mtae["edist_sd"] == pytest.approx(of_mtae.groupby("seed")["edist"].mean().std())
    assert mtae["trials"] == 6
    edist = summary.set_index("label")["edist"].to_dict()
    assert edist["ceiling"] < edist["mean-shift"] < edist["floor"]
    assert summary.set_index("label").loc["mean-shift", "edist_sd"] == pytest.approx(0)


def test_running_again_does_nothing_and_a_changed_study_only_what_is_new(
    run: Run, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(undisturbed, out)
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*/*.json")}
    study = tmp_path / "more.toml"
    study.write_text(
        STUDY.replace('"mean-shift",', '"mean-shift", "no-change",').replace("seeds = [1, 2]", "seeds = [1]")
    )
    code, printed, _ = run("benchmark", study, "--out", out)
    assert code == 0
    assert "12 trials of 4 models on 1 data sets, 9 of them done" in printed
    after = {path.name: path.stat().st_mtime_ns for path in out.glob("*/*.json")}
    assert {name: after[name] for name in before} == before
    assert len(after) - len(before) == 3
    assert len(pd.read_csv(out / "results.csv")) == 12 * 2  # what the study no longer asks for stays, unseen


def test_a_failing_trial_is_recorded_and_the_others_go_on(run: Run, tmp_path: Path) -> None:
    study, out = tmp_path / "study.toml", tmp_path / "out"
    study.write_text(STUDY.replace("epochs = 3, hidden = 16, latent = 8, batch_size = 16", "batch_size = 5000"))
    code, _, said = run("benchmark", study, "--out", out)
    assert code == 1
    assert "some trials failed" in said
    results = load_results(out)
    failed = [trial for trial in results.trials if trial.status == "failed"]
    assert len(failed) == 6
    assert len(results.trials) == N_TRIALS
    assert failed[0].error.startswith("InputError:")
    assert "cannot fill a batch of 5000" in failed[0].error
    summary = results.summary.set_index("label")
    assert summary["failed"].to_dict() == {
        "mtae": 0,
        "mtvae": 6,
        "mean-shift": 0,
        "floor": 0,
        "mean_response": 0,
        "ceiling": 0,
    }
    assert list(summary.index[summary["edist"].isna()]) == ["mtvae"]

    times = {path.name: path.stat().st_mtime_ns for path in out.glob("trials/*.json")}
    run("benchmark", study, "--out", out)
    assert {path.name: path.stat().st_mtime_ns for path in out.glob("trials/*.json")} == times
    run("benchmark", study, "--out", out, "--retry-failed")
    changed = [path for path in out.glob("trials/*.json") if path.stat().st_mtime_ns != times[path.name]]
    assert len(changed) == 6


def test_killed_three_times_it_ends_like_an_undisturbed_run(
    study_file: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    rng = np.random.default_rng(0)
    for _ in range(3):
        process = start(study_file, out)
        wait_for_trials(process, out, min(trials_on_disk(out) + 1, N_TRIALS - 1))
        time.sleep(rng.uniform(0, 0.3))
        process.kill()
        process.wait()
        for path in out.glob("*/[!.]*.json"):
            assert path.read_text().endswith("}")  # whole, whenever the power went
    (out / "trials" / ".half.json").write_text('{"dataset": "ma')
    assert start(study_file, out).wait(timeout=120) == 0
    same(outcomes(out), outcomes(undisturbed))
    assert not list(out.rglob(".*"))


def test_a_damaged_record_is_made_again(run: Run, study_file: Path, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(undisturbed, out)
    damaged = sorted(out.glob("trials/*.json"))[0]
    damaged.write_text(damaged.read_text()[:100])
    assert run("benchmark", study_file, "--out", out)[0] == 0
    same(outcomes(out), outcomes(undisturbed))


def test_a_killed_worker_costs_nothing_but_time(study_file: Path, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(study_file, out, "--workers", "2")
    wait_for_trials(process, out, 1)
    workers = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "spawn_main" in " ".join(child.cmdline())
    ]
    assert len(workers) >= 2
    workers[-1].send_signal(signal.SIGKILL)
    assert process.wait(timeout=180) == 0
    same(outcomes(out), outcomes(undisturbed))


def test_workers_of_a_cluster_give_the_same_numbers(
    run: Run, study_file: Path, undisturbed: Path, tmp_path: Path
) -> None:
    from distributed import LocalCluster

    out = tmp_path / "out"
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        code, _, said = run("benchmark", study_file, "--out", out, "--scheduler", cluster.scheduler_address)
    assert code == 0
    assert f"[{N_TRIALS}/{N_TRIALS}]" in said
    same(outcomes(out), outcomes(undisturbed))


def test_no_cluster_at_the_address(run: Run, study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multipert.benchmark.engine.PATIENCE", 1)
    code, _, said = run("benchmark", study_file, "--out", tmp_path / "out", "--scheduler", "tcp://127.0.0.1:9")
    assert code == 2
    assert "no Dask scheduler answers at 'tcp://127.0.0.1:9'" in said


def test_ctrl_c_keeps_what_is_done(study_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(study_file, out)
    wait_for_trials(process, out, 2)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 1
    assert len(pd.read_csv(out / "results.csv")) == 2 * trials_on_disk(out)


def test_a_full_disk_or_a_forbidden_folder_is_said_before_any_work(run: Run, study_file: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here already")
    code, _, said = run("benchmark", study_file, "--out", tmp_path / "file")
    assert code == 2
    assert "choose another folder" in said


def jobs_of(study_file: Path, **options: Any) -> Sequence[Job]:
    return plan_study(read_study(study_file), **options).jobs


def test_trials_that_can_be_trained_as_one_are_given_out_together(study_file: Path) -> None:
    jobs = jobs_of(study_file)
    groups = list(grouped(jobs, lambda trial: 4))
    assert [len(group) for group in groups] == [1] * 4 + [4, 2] * 3
    assert {job.file for group in groups for job in group} == {job.file for job in jobs}
    for group in groups[4:]:
        trials = [job for job in group if isinstance(job, FitJob)]
        assert len({(trial.model.label, trial.batch_key) for trial in trials}) == 1
    assert [len(group) for group in grouped(jobs, lambda trial: 1)] == [1] * len(jobs)


def test_trials_trained_as_one_give_what_each_gives_alone_but_for_its_random_numbers(
    study_file: Path, undisturbed: Path
) -> None:
    alone = load_results(undisturbed).scores.set_index(["label", "held_out", "seed", "perturbation"])
    for group in list(grouped(jobs_of(study_file), lambda trial: 3))[4:]:
        for _, record, problem in attempt_together(group):
            assert problem == ""
            assert isinstance(record, TrialResult)
            assert record.status == "done"  # those that train nothing are done one by one
            for perturbation, scores in record.scores.items():
                expected = alone.loc[(record.label, record.held_out, record.seed, perturbation)]
                assert record.steps == expected["steps"]
                assert scores["r2_hvg"] == pytest.approx(expected["r2_hvg"], abs=0.15)


def test_gpus_are_dealt_out_to_trials_that_name_no_device(study_file: Path) -> None:
    for device, expected in {"auto": "cuda:1", "cuda": "cuda:1", "cuda:0": "cuda:0", "cpu": "cpu"}.items():
        for job in plan_study(read_study(study_file), device=device).jobs:
            dealt = on_gpu(job, 1)
            assert dealt.file == job.file
            assert not isinstance(dealt, FitJob) or dealt.device == expected


def test_workers_do_groups_each_on_its_own_gpu(study_file: Path) -> None:
    """There is no GPU here, and each trial says on which one it was to be."""
    from distributed import Client, LocalCluster

    groups = list(grouped([job for job in jobs_of(study_file) if isinstance(job, FitJob)], lambda trial: 2))
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        ended = list(spread(client, groups[:6], 2))
    records = [record for _, record, _ in ended if isinstance(record, TrialResult)]
    assert len(records) == 12
    asked = {re.findall(r"cuda:\d", record.error)[0] for record in records if record.label != "mean-shift"}
    assert asked == {"cuda:0", "cuda:1"}


def test_the_plan_says_how_much_there_is_to_do_and_does_nothing(run: Run, study_file: Path, tmp_path: Path) -> None:
    code, printed, _ = run("benchmark", study_file, "--out", tmp_path / "out", "--plan", "--workers", "2")
    assert code == 0
    assert "18 trials of 3 models on 1 data sets, 0 of them done" in printed
    assert {"mtae", "mtvae", "mean-shift", "bounds"} <= {line.split()[0] for line in printed.splitlines() if line}
    assert "with 2 workers" in printed
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_trial_that_takes_more_memory_than_it_may_is_recorded_as_killed_for_it(run: Run, tmp_path: Path) -> None:
    world = 'simulate = { n_genes = 2000, contexts = ["A", "B"], perturbations = ["alpha"], cells_per_group = 20 }'
    study = f'models = ["mean-shift"]\nmetrics = ["mse"]\n[[datasets]]\nname = "made"\nheld_out = ["B"]\n{world}\n'
    (tmp_path / "study.toml").write_text(study)
    command = ("benchmark", tmp_path / "study.toml", "--out", tmp_path / "out")

    code, _, said = run(*command, "--workers", "2", "--memory", "290MiB")  # less than to import torch takes

    assert code == 1, said
    (trial,) = load_results(tmp_path / "out").trials
    assert trial.status == "failed"
    assert "killed for memory" in trial.error
    assert run(*command, "--workers", "2", "--memory", "4GiB", "--retry-failed")[0] == 0
