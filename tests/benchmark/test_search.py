"""A search: what it proposes, that it never reads what is held out, and that it goes on whatever happens to it."""

import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import multipert as mp
from conftest import Run
from multipert.benchmark import SearchPlan, load_search, plan_search, read_study
from multipert.benchmark.search_trial import LEAST_EARLIER, SearchTrial

LINEAR = """
models = ["linear", "no-change"]
[[datasets]]
name = "made"
held_out = ["D"]
simulate = { n_genes = 40, contexts = ["A", "B", "C", "D"], perturbations = ["alpha", "beta"], cells_per_group = 15 }
"""
NETWORK = LINEAR.replace('"linear"', '{ name = "mtae", epochs = 6, hidden = 16, latent = 8, batch_size = 16 }')
KEYS = 'path = "cells.h5ad"\nperturbation_key = "condition"\ncontrol = "control"\ncontext_key = "cell_type"\n'


def written(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.toml").write_text(text)
    return folder / "study.toml"


def course(folder: Path) -> pd.DataFrame:
    """Everything a search found out, its times apart."""
    return load_search(folder).trials.drop(columns="seconds")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search of twelve trials, run in this process from beginning to end."""
    folder = tmp_path_factory.mktemp("undisturbed")
    mp.tune(written(folder, LINEAR), "linear", trials=12, out=folder / "found")
    return folder / "found"


def test_a_search_begins_with_the_values_as_they_are_and_ends_with_the_best(undisturbed: Path) -> None:
    found = load_search(undisturbed)
    assert found.contexts == ["made: A", "made: B", "made: C"]
    assert len(found.trials) == 12
    assert found.start["ridge"] == mp.models.preset_values(mp.models.MODELS["linear"], "default")["ridge"]
    assert found.best["value"] == found.done["value"].max() >= found.start["value"]
    columns = [f"in {name}" for name in found.contexts]
    np.testing.assert_allclose(found.done["value"], found.done[columns].mean(axis=1))
    pd.testing.assert_frame_equal(
        pd.read_csv(undisturbed / "trials.csv")[["trial", "value", "ridge"]], found.trials[["trial", "value", "ridge"]]
    )
    assert found.importances == pytest.approx({"ridge": 1.0})


def test_the_preset_that_was_found_is_one_for_fits_and_studies(undisturbed: Path, tmp_path: Path, run: Run) -> None:
    best = load_search(undisturbed).best["ridge"]
    model = mp.models.create("linear", preset=undisturbed / "preset.toml")
    assert (model.parameters.ridge, model.preset) == (best, "default")

    text = LINEAR.replace('"linear"', '{ name = "linear", preset = "../found.toml" }, "linear"')
    (tmp_path / "found.toml").write_bytes((undisturbed / "preset.toml").read_bytes())
    models = read_study(written(tmp_path / "study", text)).models
    assert [one.label for one in models] == ["linear (../found)", "linear (default)", "no-change"]
    assert models[0].changes == {"ridge": best}

    mp.simulate(n_genes=30, contexts=("A", "B"), cells_per_group=8).write_h5ad(tmp_path / "cells.h5ad")
    keys = ("--perturbation-key", "condition", "--control", "control", "--context-key", "cell_type")
    where = ("--preset", tmp_path / "found.toml", "--out", tmp_path / "run")
    assert run("fit", tmp_path / "cells.h5ad", "--model", "linear", *keys, *where)[0] == 0
    (tmp_path / "found.toml").unlink()  # a run holds its values itself
    assert mp.models.load(tmp_path / "run").parameters.ridge == best


def test_the_response_that_is_held_out_is_never_read(tmp_path: Path) -> None:
    cells = mp.simulate(n_genes=40, contexts=("A", "B", "C", "D"), perturbations=("alpha", "beta"), cells_per_group=15)
    hidden = ((cells.obs["cell_type"] == "D") & (cells.obs["condition"] != "control")).to_numpy()
    text = re.sub("simulate = .*\n", KEYS, LINEAR)
    found = []
    for name in ("as measured", "spoilt"):
        study = written(tmp_path / name, text)
        cells.write_h5ad(study.with_name("cells.h5ad"))
        mp.tune(study, "linear", trials=3, out=tmp_path / name / "found")
        found.append((course(tmp_path / name / "found"), (tmp_path / name / "found" / "preset.toml").read_text()))
        X = cells.X.toarray() if hasattr(cells.X, "toarray") else cells.X.copy()
        X[hidden] = np.nan  # which no command would take
        cells.X = X
    pd.testing.assert_frame_equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]
    with pytest.raises(mp.InputError, match="1200 values are NaN"):
        mp.PerturbationData.from_anndata(
            cells, perturbation_key="condition", control="control", context_key="cell_type"
        )
    # The same search, so it goes on where the truth is another.
    mp.tune(tmp_path / "spoilt" / "study.toml", "linear", trials=4, out=tmp_path / "as measured" / "found")
    assert len(course(tmp_path / "as measured" / "found")) == 4


def test_stopped_anywhere_it_ends_like_an_undisturbed_search(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, out, study = SearchTrial.run, tmp_path / "found", written(tmp_path, LINEAR)

    def stop_at(number: int) -> None:
        def run_or_stop(trial: SearchTrial) -> Any:
            if trial.number == number:
                raise KeyboardInterrupt
            return run(trial)

        monkeypatch.setattr(SearchTrial, "run", run_or_stop)

    for number in (0, 5, 11):
        stop_at(number)
        with pytest.raises(KeyboardInterrupt):
            mp.tune(study, "linear", trials=12, out=out)
        with (out / "journal.log").open("a") as journal:
            journal.write('{"op_code":5,"worker')  # whenever the power went
        (out / "journal.log.lock").touch()
    stop_at(-1)
    mp.tune(study, "linear", trials=12, out=out)
    pd.testing.assert_frame_equal(course(out), course(undisturbed))
    before = (out / "journal.log").read_bytes()
    mp.tune(study, "linear", trials=12, out=out)
    assert (out / "journal.log").read_bytes() == before


def test_workers_that_are_killed_with_their_search_lose_the_trials_in_flight(run: Run, tmp_path: Path) -> None:
    study, out = written(tmp_path, LINEAR), tmp_path / "found"
    asked = ("tune", str(study), "--model", "linear", "--out", str(out))
    begun = [
        sys.executable,
        "-c",
        "from multipert.cli import main; main()",
        *asked,
        "--trials",
        "500",
        "--workers",
        "2",
    ]
    process = subprocess.Popen(begun, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 300
        while not (out / "trials.csv").exists():
            assert process.poll() is None, "the search ended early"
            assert time.monotonic() < deadline, "the search is stuck"
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    there = len(course(out))
    code, printed, said = run(*asked, "--trials", there + 2)
    assert code == 0
    assert "0 failed" in printed
    assert set(course(out)["state"]) <= {"done", "stopped"}
    assert f"[{there + 2}/{there + 2}]" in said
    assert list(course(out)["trial"]) == list(range(there + 2))


def test_workers_of_a_cluster_make_its_trials(run: Run, tmp_path: Path) -> None:
    from distributed import LocalCluster

    study, out = written(tmp_path, LINEAR), tmp_path / "found"
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        asked = ("--model", "linear", "--trials", "4", "--scheduler", cluster.scheduler_address)
        code, _, said = run("tune", study, "--out", out, *asked)
    assert code == 0
    assert "[4/4]" in said
    found = load_search(out)
    assert len(found.done) == 4
    alone = mp.tune(study, "linear", trials=1, out=tmp_path / "alone")
    assert found.start["value"] == pytest.approx(alone.start["value"], rel=1e-6)


def plan(folder: Path, text: str = NETWORK, model: str = "mtae", **options: Any) -> SearchPlan:
    return plan_search(read_study(written(folder, text)), model, **options)


def test_a_hopeless_trial_is_given_up_at_an_epoch_that_others_have_seen(tmp_path: Path) -> None:
    asked = plan(tmp_path, inner=2)
    better = [{5: 9.0, 1000: -99.0}] * LEAST_EARLIER
    trial = SearchTrial(0, asked.contexts, asked.model, asked.normalised, better[1:], "cpu")
    through = trial.run()
    assert through.stopped == ""
    assert list(through.steps) == [5, 1000, 1005]
    assert len(through.scores) == 2
    stopped = replace(trial, earlier=better).run()
    assert (stopped.stopped, stopped.scores) == ("after 5 epochs in made: A", [])
    later = replace(trial, earlier=[{5: -99.0, 1000: 9.0}] * LEAST_EARLIER).run()
    assert (later.stopped, later.scores) == ("after made: A", through.scores[:1])


def test_what_the_study_sets_is_left_and_the_rest_is_searched_around_it(tmp_path: Path) -> None:
    asked = plan(tmp_path / "set")
    assert list(asked.space) == ["mask", "dropout", "film_hidden", "lr"]
    study = plan(tmp_path / "study", 'preset = "study"\n' + LINEAR, "mtae")
    assert study.model.preset == "default"  # the study does not name it
    named = plan(
        tmp_path / "named", LINEAR.replace('"linear"', '{ name = "mtae", preset = "study", label = "old" }'), "old"
    )
    lr = named.space["lr"]
    assert isinstance(lr, mp.models.Range)
    assert (lr.low, lr.high) == (1e-5, 1e-2)
    assert len(plan(tmp_path / "few", inner=1).contexts) == 1


@pytest.mark.parametrize(
    ("text", "arguments", "sentence"),
    [
        (LINEAR, {"model": "linaer"}, "there is no model 'linaer'; did you mean 'linear'"),
        (LINEAR, {"model": "no-change"}, "no-change has no parameters to search: choose among mtae"),
        (LINEAR, {"metric": "edits"}, "there is no metric 'edits'; did you mean 'edist'"),
        (LINEAR, {"metric": "vcc2026"}, "reads raw counts"),
        (LINEAR, {"trials": 0}, "a search takes 1 trial or more, not 0"),
        (LINEAR, {"inner": 0}, "a search holds out 1 inner context or more, not 0"),
        (LINEAR.replace("held_out", "#"), {}, "line 3: made does not say which contexts are held out"),
        (LINEAR.replace('["D"]', '["E"]'), {}, "line 5: there is no context 'E'"),
        (LINEAR.replace('["D"]', '["B", "C", "D"]'), {}, "made has 1 context with both control and perturbed cells"),
        (LINEAR.replace("held_out", 'held_out_perturbations = ["alpha"]\n#'), {}, "name contexts alone"),
        (LINEAR.replace(', "beta"', ""), {"metric": "discrimination"}, "discrimination needs several perturbations"),
        (
            LINEAR.replace('"linear"', '{ name = "linear", ridge = 2.0 }'),
            {},
            "the study sets every parameter of linear",
        ),
    ],
)
def test_what_cannot_be_searched_is_said_in_a_sentence(
    text: str, arguments: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(mp.InputError, match=re.escape(sentence)) as caught:
        mp.tune(written(tmp_path, text), **{"model": "linear", "trials": 1, "out": tmp_path / "found", **arguments})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "found").exists()


def test_another_search_in_the_same_folder_is_refused(undisturbed: Path, tmp_path: Path, run: Run) -> None:
    others: tuple[tuple[str, dict[str, Any], str], ...] = (
        (LINEAR, {"metric": "pearson_delta"}, "metric"),
        (LINEAR.replace("= 15", "= 16"), {}, "study"),
        (LINEAR.replace('"linear"', '"mtae"'), {"model": "mtae"}, "model"),
    )
    for text, options, what in others:
        study = written(tmp_path, text)
        with pytest.raises(mp.InputError, match=f"holds a search that differs in its {what}: "):
            mp.tune(study, **{"model": "linear", "trials": 1, "out": undisturbed, **options})
    (tmp_path / "study.toml").write_text(LINEAR)
    (tmp_path / "found").write_text("a file")
    code, _, said = run(
        "tune", tmp_path / "study.toml", "--model", "linear", "--trials", 1, "--out", tmp_path / "found"
    )
    assert code == 2
    assert "choose another folder" in said


def test_a_damaged_folder_is_named(undisturbed: Path, tmp_path: Path) -> None:
    with pytest.raises(mp.InputError, match="no folder of a search"):
        load_search(tmp_path)
    (tmp_path / "search.json").write_bytes((undisturbed / "search.json").read_bytes())
    with pytest.raises(mp.InputError, match="holds no trial yet"):
        load_search(tmp_path)
    lines = (undisturbed / "journal.log").read_text().splitlines(keepends=True)
    (tmp_path / "journal.log").write_text("".join([*lines[:3], "spoilt\n", *lines[3:]]))
    with pytest.raises(mp.InputError, match="journal.log is damaged"):
        load_search(tmp_path)


def test_where_every_trial_fails_the_first_says_why(tmp_path: Path) -> None:
    study = written(tmp_path, NETWORK.replace("batch_size = 16", "batch_size = 5000"))
    with pytest.raises(mp.InputError, match="no trial succeeded; the first failed with .* batch of 5000"):
        mp.tune(study, "mtae", trials=1, out=tmp_path / "found")
