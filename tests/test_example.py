"""The example package: installed, a model of somebody else's is found and used as ours are."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import Run

EXAMPLE = Path(__file__).parents[1] / "examples" / "multipert-example"

STUDY = """
metrics = ["r2_hvg"]
models = ["fold-change", { name = "fold-change", label = "cautious", pseudocount = 1 }, "no-change"]

[[datasets]]
name = "made"
held_out = ["A"]
simulate = { n_genes = 60, contexts = ["A", "B"], perturbations = ["alpha"], cells_per_group = 15 }
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the example is installed in, without the network."""
    folder = tmp_path_factory.mktemp("site")
    source = shutil.copytree(EXAMPLE, folder / "source")  # a build leaves files behind
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(folder / "packages")]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(source)], check=True)
    return folder / "packages"


@pytest.fixture
def example(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(installed))


@pytest.mark.usefixtures("example")
def test_it_is_listed_and_has_a_card(run: Run) -> None:
    code, out, err = run("models")
    assert (code, err) == (0, "")
    assert "fold-change" in out
    code, out, _ = run("models", "fold-change")
    assert code == 0
    assert "pseudocount" in out
    assert "0.05" in out


@pytest.mark.usefixtures("example")
def test_its_own_tests_pass() -> None:
    from multipert.models import model_class
    from multipert.testing import check_model

    check_model(model_class("fold-change"))


@pytest.mark.usefixtures("example")
def test_it_runs_in_a_study(run: Run, tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(STUDY)
    code, _, err = run("benchmark", tmp_path / "study.toml", "--out", tmp_path / "results")
    assert code == 0, err
    summary = (tmp_path / "results" / "summary.csv").read_text()
    assert "fold-change" in summary
    assert "cautious" in summary
