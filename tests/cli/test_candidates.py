"""``multipert rank`` and ``multipert dose-response``: which perturbation to take, and at what dose."""

from pathlib import Path

import pandas as pd
import pytest

import multipert as mp
from conftest import Run

DOSES = (0.1, 1.0, 10.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two models, one told of doses, with control cells and cells of a state."""
    folder = tmp_path_factory.mktemp("candidates")
    adata = mp.simulate(
        n_genes=40, contexts=("A",), perturbations=("alpha", "beta"), doses=DOSES, cells_per_group=40, response=2.0
    )
    data = mp.PerturbationData.from_anndata(
        adata, perturbation_key="compound", control="control", context_key="cell_type", dose_key="dose"
    )
    mp.models.create("mtcell").fit(data, features="dose", run=folder / "told", progress=False)
    mp.models.create("mean-shift").fit(data, run=folder / "plain", progress=False)
    for file, names in {"controls": "control", "state": "beta@10"}.items():
        data.to_anndata(data.rows(condition=names)).write_h5ad(folder / f"{file}.h5ad")
    return folder


def test_what_leads_to_a_state_comes_first(run: Run, folder: Path, tmp_path: Path) -> None:
    out, cells = tmp_path / "ranked.csv", ("--cells", folder / "controls.h5ad")
    code, printed, err = run(
        "rank", folder / "told", folder / "plain", *cells, "--toward", folder / "state.h5ad", "--top", "2", "--out", out
    )
    assert code == 0, err
    assert "6 perturbations, the best first" in printed
    table = pd.read_csv(out, index_col="perturbation")
    assert list(table) == ["score", "low", "high", "along", "seen"]
    assert table.index[0] == "beta@10"
    assert len(table) == 6
    code, printed, _ = run("rank", folder / "told", *cells, "--away-from", folder / "state.h5ad")
    assert code == 0
    assert [line.split()[0] for line in printed.splitlines() if "@" in line][-1] == "beta@10"


def test_curves_and_the_dose_of_half_the_effect(run: Run, folder: Path, tmp_path: Path) -> None:
    out, cells = tmp_path / "curves.csv", ("--cells", folder / "controls.h5ad")
    asked = ("--gene", "Gene0003", "--compound", "beta", "--out", out)
    code, printed, err = run("dose-response", folder / "told", *cells, *asked)
    assert code == 0, err
    assert "along 25 doses from 0.1 to 10" in printed
    assert list(pd.read_csv(out)) == ["gene", "dose", "mean", "low", "high"]
    assert list(pd.read_csv(tmp_path / "curves.ec50.csv")) == ["gene", "ec50", "low", "high", "change"]
    code, printed, err = run("dose-response", folder / "plain", *cells, *asked)
    assert code == 0, err
    assert "along 3 doses from 0.1 to 10" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("rank told", "name the state with --toward CELLS or with --away-from"),
        ("rank told --toward controls.h5ad", "the control cells are in that state already"),
        ("rank told --toward state.h5ad --level 90", "level is a probability between 0 and 1"),
        ("rank told --toward state.h5ad --perturbation gamma@1", "knows no perturbation 'gamma"),
        ("dose-response told --gene Gene0003", "say which compound: alpha, beta"),
        ("dose-response told --gene nope --compound beta", "knows no gene 'nope'"),
        ("dose-response told --gene Gene0003 --compound beta --dose 2", "a curve needs two doses or more"),
        ("dose-response plain --gene Gene0003 --compound beta --dose 2 --dose 3", "knows no perturbation 'beta@2'"),
    ],
)
def test_what_cannot_be_answered_is_said(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, message: str
) -> None:
    monkeypatch.chdir(folder)
    code, _, err = run(*arguments.split(), "--cells", "controls.h5ad")
    assert code == 2
    assert message in err
