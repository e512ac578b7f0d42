"""The command line: the main job from file to file, and what it says of bad input."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import multipert as mp
from conftest import Run
from multipert.evaluation import METRICS, PROFILES, STUDY

KEYS = ("--perturbation-key", "condition", "--control", "control", "--context-key", "cell_type")
SMALL = ("--epochs", "2", "--set", "hidden=16", "--set", "latent=8", "--set", "batch_size=16")


@pytest.fixture(scope="module")
def adata() -> AnnData:
    return mp.simulate(n_genes=60, contexts=("A", "B", "C"), perturbations=("alpha", "beta"), cells_per_group=20)


@pytest.fixture(scope="module")
def files(adata: AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cells")
    adata.write_h5ad(folder / "data.h5ad")
    b = adata[adata.obs["cell_type"] == "B"]
    b[b.obs["condition"] == "control"].write_h5ad(folder / "controls.h5ad")
    b[b.obs["condition"] == "alpha"].write_h5ad(folder / "truth.h5ad")
    return folder


@pytest.fixture(scope="module")
def fitted(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    data = mp.PerturbationData.from_anndata(
        files / "data.h5ad", perturbation_key="condition", control="control", context_key="cell_type"
    )
    model = mp.models.create("mtae", epochs=2, hidden=16, latent=8, batch_size=16)
    model.fit(data, mp.leave_context_out(data, "B"), run=out)
    return out


def test_fit_predict_evaluate(run: Run, files: Path, tmp_path: Path) -> None:
    fit = ("fit", files / "data.h5ad", "--model", "mtae", *KEYS, "--hold-out", "B", *SMALL, "--seed", "1")
    code, out, err = run(*fit, "--out", tmp_path / "run")
    assert code == 0
    assert "epoch 2/2" in err
    assert "parameters" in out
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (record["model"], record["held_out"], record["parameters"]["latent"]) == ("mtae", "B", 8)

    predict = ("predict", tmp_path / "run", "--cells", files / "controls.h5ad", "--perturbation", "alpha")
    code, out, _ = run(*predict, "--out", tmp_path / "predicted.h5ad")
    assert code == 0
    assert "20 cells x 60 genes under alpha" in out
    predicted = ad.read_h5ad(tmp_path / "predicted.h5ad")
    assert set(predicted.obs["condition"]) == {"alpha"}

    populations = ("--control", files / "controls.h5ad", "--truth", files / "truth.h5ad")
    score = ("evaluate", *populations, "--predicted", tmp_path / "predicted.h5ad", "--out", tmp_path / "scores.csv")
    code, out, _ = run(*score)
    assert code == 0
    assert all(name in out for name in (*STUDY, "floor", "ceiling", "normalised"))
    scores = pd.read_csv(tmp_path / "scores.csv")
    assert len(scores) == 1
    names = [name for name, metric in METRICS.items() if not metric.several]
    assert list(scores.columns[: len(names)]) == names
    assert {"edist_floor", "edist_ceiling", "edist_normalised"} <= set(scores.columns[len(names) :])
    expected = mp.evaluate(
        control=files / "controls.h5ad", truth=files / "truth.h5ad", predicted=tmp_path / "predicted.h5ad"
    )
    np.testing.assert_allclose(scores[names].iloc[0], expected[names], rtol=1e-6)


def test_fit_takes_mtcell_unless_told_otherwise(run: Run, files: Path, tmp_path: Path) -> None:
    code, _, _ = run("fit", files / "data.h5ad", *KEYS, "--hold-out", "B", "--out", tmp_path / "run")
    assert code == 0
    assert json.loads((tmp_path / "run" / "run.json").read_text())["model"] == "mtcell"


def test_several_perturbations_are_scored_at_once_with_intervals(run: Run, adata: AnnData, tmp_path: Path) -> None:
    b = adata[adata.obs["cell_type"] == "B"]
    perturbed = b[b.obs["condition"] != "control"]
    for name, cells in (("c", b[b.obs["condition"] == "control"]), ("t", perturbed), ("p", perturbed)):
        cells.write_h5ad(tmp_path / f"{name}.h5ad")
    files = ("--control", tmp_path / "c.h5ad", "--truth", tmp_path / "t.h5ad", "--predicted", tmp_path / "p.h5ad")
    score = ("evaluate", *files, "--perturbation-key", "condition", "--intervals", "2", "--out", tmp_path / "s.csv")
    code, out, _ = run(*score)
    assert code == 0
    assert all(name in out for name in ("alpha", "beta", "low", "high", "discrimination"))
    scores = pd.read_csv(tmp_path / "s.csv", index_col=0)
    assert list(scores.index) == ["alpha", "beta"]
    names = PROFILES["default"].metrics()
    assert tuple(scores.columns[: len(names)]) == names
    assert {"edist_low", "edist_high", "edist_floor", "edist_normalised"} <= set(scores.columns)
    assert (scores["discrimination"] == 1).all()
    code, _, err = run("evaluate", *files)
    assert code == 2
    assert "--perturbation-key condition" in err


def test_many_perturbations_are_summed_up_on_the_terminal(run: Run, tmp_path: Path) -> None:
    names = [f"drug{i}" for i in range(12)]
    cells = mp.simulate(n_genes=60, contexts=["A"], perturbations=names, cells_per_group=8, seed=0)
    is_control = (cells.obs["condition"] == "control").to_numpy()
    places = [tmp_path / f"{name}.h5ad" for name in "ctp"]
    for rows, place in zip((is_control, ~is_control, ~is_control), places, strict=True):
        cells[rows].copy().write_h5ad(place)
    files = [word for pair in zip(("--control", "--truth", "--predicted"), places, strict=True) for word in pair]
    mean_response = ("--mean-response", places[1], "--perturbation-key", "condition", "--out", tmp_path / "s.csv")
    code, out, err = run("evaluate", *files, *mean_response)
    assert code == 0, err
    assert "means over 12 perturbations" in out
    assert "best by edist" in out
    assert "worst by edist" in out
    assert sum(name in out for name in names) <= 10
    assert len(out.splitlines()) < 60
    scores = pd.read_csv(tmp_path / "s.csv", index_col=0)
    assert len(scores) == 12
    assert {"edist_floor", "edist_mean_response", "edist_ceiling", "edist_normalised"} <= set(scores.columns)


def test_report_of_a_run(run: Run, files: Path, fitted: Path, tmp_path: Path) -> None:
    code, out, _ = run("report", fitted, "--data", files / "data.h5ad", "--out", tmp_path / "page.html")
    assert code == 0
    assert str(tmp_path / "page.html") in out
    page = (tmp_path / "page.html").read_text()
    assert "alpha" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_a_report_that_promises_another_format_is_refused(run: Run, fitted: Path, tmp_path: Path) -> None:
    for out, more, message in (
        ("page.pdf", (), "page.pdf must end in .html"),
        ("page.html", ("--format", "latex"), "page.html must end in .tex or .latex"),
    ):
        code, _, said = run("report", fitted, "--out", tmp_path / out, *more)
        assert code == 2
        assert message in said
        assert not (tmp_path / out).exists()


def test_preprocess_refuses_to_drop_most_cells_unasked(run: Run, tmp_path: Path) -> None:
    counts = np.tile(np.array([2.0, 0.0], dtype=np.float32), (400, 600))
    counts[:250, 160:] = 0  # 250 cells with 80 expressed genes, of a panel of 1,200
    AnnData(counts).write_h5ad(tmp_path / "panel.h5ad")
    preprocess = ("preprocess", tmp_path / "panel.h5ad", "--out", tmp_path / "out.h5ad")

    code, _, said = run(*preprocess)
    assert code == 2
    assert "only 150 of 400 cells would stay: min_genes=86" in said
    assert not (tmp_path / "out.h5ad").exists()

    code, _, said = run(*preprocess, "--min-genes", "86", "--genes", "40")
    assert code == 2
    assert "hardly any gene varies from cell to cell" in said

    code, printed, _ = run(*preprocess, "--min-genes", "86", "--genes", "600")
    assert code == 0
    assert "cells with 86 expressed genes" in printed
    assert ad.read_h5ad(tmp_path / "out.h5ad").n_obs == 150


def test_preprocess_makes_counts_fit_for_fit(run: Run, adata: AnnData, tmp_path: Path) -> None:
    raw = AnnData(adata.layers["counts"], obs=adata.obs, var=adata.var)
    raw.write_h5ad(tmp_path / "counts.h5ad")
    fit = ("fit", tmp_path / "counts.h5ad", "--model", "no-change", *KEYS, "--out", tmp_path / "run")
    code, _, err = run(*fit)
    assert code == 2
    assert "raw counts" in err
    assert "multipert preprocess" in err
    limits = ("--min-counts", "1", "--min-genes", "1", "--min-cells", "1", "--genes", "40", "--hold-out", "B")
    code, out, _ = run("preprocess", tmp_path / "counts.h5ad", "--out", tmp_path / "data.h5ad", *limits, *KEYS)
    assert code == 0
    assert "40 of 60 genes" in out
    code, _, _ = run("fit", tmp_path / "data.h5ad", "--model", "no-change", *KEYS, "--out", tmp_path / "run")
    assert code == 0


def test_doses_of_one_compound(run: Run, tmp_path: Path) -> None:
    doses = mp.simulate(n_genes=40, contexts=("A", "B"), perturbations=("drug",), doses=(0.1, 3), cells_per_group=20)
    doses.write_h5ad(tmp_path / "data.h5ad")
    doses[doses.obs["dose"] == 0].write_h5ad(tmp_path / "controls.h5ad")
    keys = ("--dose-key", "dose", "--compound", "TCDD", "--context-key", "cell_type")
    code, _, _ = run("fit", tmp_path / "data.h5ad", "--model", "mean-shift", *keys, "--out", tmp_path / "run")
    assert code == 0
    predict = ("predict", tmp_path / "run", "--cells", tmp_path / "controls.h5ad", "--out", tmp_path / "p.h5ad")
    assert run(*predict, "--perturbation", "TCDD@3")[0] == 0
    assert set(ad.read_h5ad(tmp_path / "p.h5ad").obs["dose"]) == {3}
    code, _, err = run(*predict, "--perturbation", "TCDD@5")
    assert code == 2
    assert "'TCDD@3'" in err


def test_models_and_metrics_are_listed(run: Run) -> None:
    code, out, _ = run("models")
    assert code == 0
    assert all(name in out for name in mp.models.MODELS)
    code, out, _ = run("models", "mtae")
    assert code == 0
    assert "dropout" in out
    assert "study" in out
    code, out, _ = run("metrics")
    assert code == 0
    assert all(name in out for name in METRICS)


def test_every_command_has_help(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    for command in ("demo", "preprocess", "fit", "predict", "evaluate", "tune", "report", "models", "metrics"):
        assert command in out
        assert run(command, "--help")[0] == 0


def test_words_of_the_help_are_explained_in_it(run: Run) -> None:
    _, out, _ = run("--help")
    for word in (
        "context",
        "condition",
        "held out",
        "covariate",
        "log-normalised",
        "trial",
        "floor",
        "ceiling",
        "preset",
    ):
        assert f"\n    {word}  " in out
    assert "--set latent=64" in run("fit", "--help")[1].replace("\n", " ")


@pytest.mark.parametrize("name", ["/dev/zero", 300 * "n"])
@pytest.mark.parametrize("command", ["fit", "predict", "benchmark", "report", "evaluate", "features", "out"])
def test_what_is_no_file_is_refused_in_one_sentence(
    run: Run, adata: AnnData, tmp_path: Path, command: str, name: str
) -> None:
    adata.write_h5ad(tmp_path / "cells.h5ad")
    keys = ("--perturbation-key", "condition", "--control", "control", "--context-key", "cell_type")
    cells, out = tmp_path / "cells.h5ad", tmp_path / "out.h5ad"
    code, _, said = run(
        *{
            "fit": ("fit", name, *keys, "--out", tmp_path / "run"),
            "predict": ("predict", name, "--cells", cells, "--all", "--out", out),
            "benchmark": ("benchmark", name, "--out", tmp_path / "results"),
            "report": ("report", name, "--out", tmp_path / "page.html"),
            "evaluate": ("evaluate", "--control", cells, "--truth", name, "--predicted", cells),
            "features": (
                "fit",
                cells,
                *keys,
                "--model",
                "mtae",
                "--features",
                f"table={name}",
                "--out",
                tmp_path / "run",
            ),
            "out": ("fit", cells, *keys, "--out", name),
        }[command]
    )
    assert code == 2, said
    assert len([line for line in said.splitlines() if not line.startswith("multipert: note")]) == 1


def data_with(adata: AnnData, **change: object) -> AnnData:
    """A copy of the cells with one thing wrong."""
    changed = adata.copy()
    for name, value in change.items():
        X = changed.X.toarray()
        X[3, 4] = value if name == "value" else X[3, 4]
        changed.X = X
        if name == "genes":
            changed.var_names = ["twin", "twin", *changed.var_names[2:]]
    return changed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--perturbation-key", "condtion"),
            "'condtion' is not a column of obs; did you mean 'condition'?",
        ),
        (
            ("--control", "ctrl"),
            "no cell is labelled 'ctrl', the control, in obs['condition']; did you mean 'control'?",
        ),
        (
            ("--context-key", "celltype"),
            "'celltype' is not a column of obs; did you mean 'cell_type'?",
        ),
        (("--hold-out", "D"), "'D'"),
        (("--model", "mtea"), "there is no model 'mtea'; did you mean 'mtae'?"),
        (("--preset", "studdy"), "has no preset 'studdy'"),
        (("--set", "epoch=3"), "has no parameter 'epoch'; did you mean 'epochs'?"),
        (("--set", "latent"), "--set takes key=value, not 'latent'"),
        (("--set", "batch_size=4096"), "training cells cannot fill a batch of 4096"),
        (("--layer", "logs"), "there is no layer 'logs'"),
        (("--device", "abacus"), "cannot train on device 'abacus'"),
    ],
)
def test_bad_arguments_end_with_one_sentence_and_exit_code_2(
    run: Run, files: Path, tmp_path: Path, arguments: tuple[str, str], message: str
) -> None:
    fit = ("fit", files / "data.h5ad", "--model", "mtae", *KEYS, "--out", tmp_path / "run")
    code, _, err = run(*fit, *arguments)
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "run" / "model.json").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": np.nan}, "1 values are NaN"),
        ({"value": np.inf}, "1 values are infinite"),
        ({"value": -1.0}, "1 values are negative"),
        ({"genes": "twin"}, "1 gene names occur more than once ('twin')"),
    ],
)
def test_bad_values_are_named_with_the_file(
    run: Run, adata: AnnData, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    data_with(adata, **change).write_h5ad(tmp_path / "data.h5ad")
    code, _, err = run("fit", tmp_path / "data.h5ad", "--model", "mtae", *KEYS, "--out", tmp_path / "run")
    assert code == 2
    assert message in err
    assert str(tmp_path / "data.h5ad") in err


@pytest.mark.parametrize("role", ["control", "alpha"])
def test_a_held_out_context_without_controls_or_perturbed_cells_is_refused(
    run: Run, adata: AnnData, tmp_path: Path, role: str
) -> None:
    missing = (adata.obs["cell_type"] == "B") & ((adata.obs["condition"] == "control") == (role == "control"))
    adata[~missing].write_h5ad(tmp_path / "data.h5ad")
    fit = ("fit", tmp_path / "data.h5ad", "--model", "mtae", *KEYS, "--hold-out", "B", "--out", tmp_path / "run")
    code, _, err = run(*fit)
    assert code == 2
    assert "'B'" in err
    assert ("control" if role == "control" else "perturbed") in err


def test_files_that_are_no_h5ad_are_refused(run: Run, files: Path, tmp_path: Path) -> None:
    (tmp_path / "text.h5ad").write_text("cells")
    (tmp_path / "cut.h5ad").write_bytes((files / "data.h5ad").read_bytes()[:5000])
    for name, message in (("text", "is no h5ad file"), ("cut", "truncated or damaged"), ("absent", "does not exist")):
        path = tmp_path / f"{name}.h5ad"
        code, _, err = run("fit", path, "--model", "mtae", *KEYS, "--out", tmp_path / "run")
        assert code == 2
        assert message in err
        assert str(path) in err


def test_another_run_is_not_overwritten(run: Run, files: Path, fitted: Path) -> None:
    before = {path.name: path.read_bytes() for path in fitted.iterdir()}
    code, _, err = run("fit", files / "data.h5ad", "--model", "mtae", *KEYS, *SMALL, "--out", fitted)
    assert code == 2
    assert "already holds a run" in err
    assert {path.name: path.read_bytes() for path in fitted.iterdir()} == before


def test_places_that_cannot_be_written_are_named_before_the_work(
    run: Run, files: Path, fitted: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = run("fit", files / "data.h5ad", "--model", "mtae", *KEYS, "--out", tmp_path / "file" / "run")
    assert code == 2
    assert "cannot write" in err
    predict = ("predict", fitted, "--cells", files / "controls.h5ad", "--perturbation", "alpha")
    code, _, err = run(*predict, "--out", tmp_path / "absent" / "p.h5ad")
    assert code == 2
    assert "there is no folder" in err


def test_genes_missing_at_prediction(run: Run, files: Path, fitted: Path, tmp_path: Path) -> None:
    controls = ad.read_h5ad(files / "controls.h5ad")
    controls[:, 2:].write_h5ad(tmp_path / "few.h5ad")
    predict = ("predict", fitted, "--cells", tmp_path / "few.h5ad", "--perturbation", "alpha", "--out")
    code, _, err = run(*predict, tmp_path / "p.h5ad")
    assert code == 2
    assert f"2 of the 60 genes the model was trained on are missing ('{controls.var_names[0]}'" in err
    assert not (tmp_path / "p.h5ad").exists()
    assert run(*predict, tmp_path / "p.h5ad", "--missing-genes", "zero")[0] == 0


def test_an_unknown_perturbation_is_answered(run: Run, files: Path, fitted: Path, tmp_path: Path) -> None:
    predict = ("predict", fitted, "--cells", files / "controls.h5ad", "--out", tmp_path / "p.h5ad")
    code, _, err = run(*predict, "--perturbation", "gamma")
    assert code == 2
    assert "knows no perturbation 'gamma'; there are 'alpha', 'beta'" in err


def test_ctrl_c_and_the_same_command_again(files: Path, tmp_path: Path) -> None:
    """A real process, a real signal: it stops with a checkpoint, and goes on to the end when called again."""
    command = [
        *(sys.executable, "-c", "from multipert.cli import main; main()", "fit", str(files / "data.h5ad")),
        *("--model", "mtae", *KEYS, *SMALL, "--set", "epochs=400", "--out", str(tmp_path / "run")),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "run" / "checkpoint.safetensors").exists():  # written after the first epoch
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "stopped" in err
    assert "the same command goes on from there" in err
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["checkpoint.safetensors"]

    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "epoch 400/400" in again.stderr
    assert len(pd.read_csv(tmp_path / "run" / "history.csv")) == 400
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()


def test_check_prints_a_verdict_and_writes_a_page(run: Run, files: Path, tmp_path: Path) -> None:
    page = tmp_path / "check.html"
    code, out, err = run("check", files / "data.h5ad", *KEYS, "--out", page)
    assert code == 0, err
    assert "responses" in out
    assert str(page) in out
    assert "<!doctype html>" in page.read_text()
    code, _, err = run("check", files / "data.h5ad", *KEYS[:-1], "nowhere")
    assert code == 2
    assert "nowhere" in err
