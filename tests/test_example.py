"""The example package: installed, a model of somebody else's is found and used as ours are."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from conftest import Run
from multipert.evaluation import METRICS
from multipert.models import MODELS
from multipert.testing import check_model

EXAMPLE = Path(__file__).parents[1] / "examples" / "multipert-example"

STUDY = """
metrics = ["r2_hvg", "silent_genes"]
models = [{ name = "fold-change", pseudocount = 1 }, "no-change"]

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


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """What a test loaded is not there for the next."""
    yield
    for registry, name in ((MODELS, "fold-change"), (METRICS, "silent_genes")):
        registry.remove(name)
    for module in [name for name in sys.modules if name.startswith("multipert_example")]:
        del sys.modules[module]


@pytest.mark.usefixtures("example")
def test_it_is_listed_and_has_a_card(run: Run) -> None:
    code, out, err = run("models")
    assert (code, err) == (0, "")
    assert "fold-change" in out
    code, out, _ = run("models", "fold-change")
    assert code == 0
    assert "pseudocount" in out
    assert "0.05" in out
    code, out, err = run("metrics")
    assert (code, err) == (0, "")
    assert "silent_genes" in out


@pytest.mark.usefixtures("example")
def test_its_own_tests_pass() -> None:
    check_model(MODELS["fold-change"])


@pytest.mark.usefixtures("example")
def test_it_runs_in_a_study(run: Run, tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(STUDY)
    code, _, err = run("benchmark", tmp_path / "study.toml", "--out", tmp_path / "results")
    assert code == 0, err
    table = pd.read_csv(tmp_path / "results" / "results.csv")
    assert set(table["model"]) == {"fold-change", "no-change"}
    assert table["silent_genes"].between(0, 1).all()


def test_a_broken_package_is_named_and_hides_nothing(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken-1.0.dist-info").mkdir()
    (tmp_path / "broken-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (tmp_path / "broken-1.0.dist-info" / "entry_points.txt").write_text("[multipert.models]\nbad = broken_model:Bad\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    code, out, err = run("models")
    assert code == 0
    assert "mtae" in out
    assert "the model 'bad' of the package broken cannot be loaded (ModuleNotFoundError" in err
    code, _, err = run("models", "bad")
    assert code == 2
    assert "update or uninstall that package" in err
    assert "fold-change" not in MODELS
