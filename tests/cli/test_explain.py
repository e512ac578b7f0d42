"""``multipert explain``: the genes that a run moves, on the terminal and as a file."""

from pathlib import Path

import pandas as pd
import pytest

import multipert as mp
from conftest import Run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of three models, and control cells."""
    folder = tmp_path_factory.mktemp("explain")
    adata = mp.simulate(n_genes=40, contexts=("A", "B"), perturbations=("alpha",), cells_per_group=20)
    data = mp.PerturbationData.from_anndata(
        adata, perturbation_key="condition", control="control", context_key="cell_type"
    )
    split = mp.leave_context_out(data, "B")
    for name, changes in (("mtae", {"epochs": 2, "hidden": (8,), "batch_size": 8}), ("mtcell", {}), ("no-change", {})):
        mp.models.create(name, **changes).fit(data, split, run=folder / name, progress=False)
    adata[adata.obs["condition"] == "control"].copy().write_h5ad(folder / "controls.h5ad")
    return folder


def test_genes_with_intervals(run: Run, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "genes.csv"
    code, printed, err = run("explain", folder / "mtcell", "--perturbation", "alpha", "--top", "3", "--out", out)
    assert code == 0, err
    table = pd.read_csv(out, index_col="gene")
    assert list(table) == ["control", "predicted", "effect", "low", "high"]
    assert len(table) == 40
    lines = printed.splitlines()
    assert lines[0] == "alpha, B: 40 genes, the strongest"
    assert [line.split()[0] for line in lines[2:5]] == list(table.index[:3])
    assert lines[5].startswith("written to")


def test_units_and_with_cells_genes(run: Run, folder: Path, tmp_path: Path) -> None:
    code, printed, err = run("explain", folder / "mtae", "--perturbation", "alpha")
    assert code == 0, err
    assert "FiLM steers most" in printed
    assert "Give control cells with --cells" in printed
    out = tmp_path / "genes.csv"
    cells = ("--cells", folder / "controls.h5ad", "--out", out)
    code, printed, err = run("explain", folder / "mtae", "--perturbation", "alpha", *cells)
    assert code == 0, err
    assert "alpha, 40 control cells of 2 contexts, which count equally: 40 genes" in printed
    assert len(pd.read_csv(out)) == 40
    assert list(pd.read_csv(tmp_path / "genes.units.csv")) == ["layer", "unit", "strength", "gamma", "beta", "genes"]


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        ("no-change", (), "no-change moves no gene under 'alpha': there is nothing to explain"),
        ("mtcell", ("--perturbation", "beta"), "knows no perturbation 'beta'"),
        ("mtcell", ("--out", "genes.h5ad"), "genes.h5ad must end in .csv"),
        ("mtae", ("--out", "genes.csv"), "give some with --cells"),
        ("nothing", (), "holds no fitted model"),
    ],
)
def test_what_is_refused(
    run: Run,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = arguments if "--perturbation" in arguments else ("--perturbation", "alpha", *arguments)
    code, _, err = run("explain", folder / model, *asked)
    assert code == 2
    assert err.count("\n") == 1
    assert message in err
    assert not list(tmp_path.iterdir())
