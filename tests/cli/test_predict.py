"""``multipert predict``: which perturbations, which files, and what a prediction says of itself."""

from pathlib import Path

import anndata as ad
import numpy as np
import pytest

import multipert as mp
from conftest import Run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a simple model on two perturbations, held out by donor, and control cells."""
    folder = tmp_path_factory.mktemp("predict")
    adata = mp.simulate(
        n_genes=40, contexts=("A", "B"), perturbations=("alpha", "beta"), cells_per_group=20, donors=("p1", "p2")
    )
    data = mp.PerturbationData.from_anndata(
        adata,
        perturbation_key="condition",
        control="control",
        context_key="cell_type",
        covariate_key="donor",
    )
    mp.models.create("mean-shift").fit(data, mp.leave_covariate_out(data, "p2"), run=folder / "run")
    controls = adata[adata.obs["condition"] == "control"].copy()
    controls.write_h5ad(folder / "controls.h5ad")
    controls.write_zarr(folder / "controls.zarr")
    return folder


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (("--perturbation", "beta"), {"beta"}),
        (("--perturbation", "beta", "--perturbation", "alpha"), {"alpha", "beta"}),
        (("--all",), {"alpha", "beta"}),
    ],
)
@pytest.mark.parametrize("ending", ["h5ad", "zarr"])
def test_one_several_or_all(
    run: Run, folder: Path, tmp_path: Path, asked: tuple[str, ...], expected: set[str], ending: str
) -> None:
    out = tmp_path / f"p.{ending}"
    code, printed, err = run("predict", folder / "run", "--cells", folder / f"controls.{ending}", "--out", out, *asked)

    assert code == 0, err
    assert ("under beta" if len(expected) == 1 else "under each of 2 perturbations") in printed
    predicted = ad.read_h5ad(out) if ending == "h5ad" else ad.read_zarr(out)
    assert set(predicted.obs["condition"]) == expected
    assert predicted.n_obs == len(expected) * 40
    assert predicted.obs_names.is_unique
    made = predicted.uns["multipert"]
    assert set(made["perturbations"]) == expected
    assert (made["held_out"], made["scale"]) == ("p2", "log-normalised when given")
    assert len(made["genes_filled"]) == len(made["warnings"]) == 0
    assert made["version"] == mp.__version__


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "say what to predict with --perturbation NAME, once or more, or with --all"),
        (("--all", "--perturbation", "alpha"), "one of the two"),
        (("--perturbation", "gamma"), "knows no perturbation 'gamma'"),
        (("--all", "--out", "p.csv"), "p.csv must end in .h5ad or .zarr"),
        (("--all", "--out", "controls.h5ad"), "controls.h5ad is read and would be written over"),
    ],
)
def test_what_is_refused_before_any_work(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(folder)
    before = (folder / "controls.h5ad").read_bytes()
    out = () if "--out" in arguments else ("--out", "p.h5ad")

    code, _, err = run("predict", "run", "--cells", "controls.h5ad", *out, *arguments)

    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert (folder / "controls.h5ad").read_bytes() == before
    assert not (folder / "p.h5ad").exists()


def test_a_run_held_out_by_donor_is_tested_on_the_donor(run: Run, folder: Path, tmp_path: Path) -> None:
    adata = mp.simulate(
        n_genes=40, contexts=("A", "B"), perturbations=("alpha", "beta"), cells_per_group=20, donors=("p1", "p2")
    )
    adata.write_h5ad(tmp_path / "data.h5ad")
    model = mp.models.load(folder / "run")

    data, split = model.training_data(tmp_path / "data.h5ad")

    assert split.kind == "covariate"
    tested = (data.condition != 0) & (data.covariate == data.covariates.index("p2"))
    np.testing.assert_array_equal(split.test, np.flatnonzero(tested))
    code, _, err = run("report", folder / "run", "--data", tmp_path / "data.h5ad", "--out", tmp_path / "page.html")
    assert code == 0, err
    assert "p2" in (tmp_path / "page.html").read_text()


def test_fit_holds_out_a_donor(run: Run, folder: Path, tmp_path: Path) -> None:
    adata = mp.simulate(n_genes=40, contexts=("A", "B"), perturbations=("x",), cells_per_group=20, donors=("p1", "p2"))
    adata.write_h5ad(tmp_path / "data.h5ad")
    keys = ("--perturbation-key", "condition", "--control", "control", "--context-key", "cell_type")
    fit = ("fit", tmp_path / "data.h5ad", "--model", "mean-shift", *keys, "--covariate-key", "donor")

    code, _, err = run(*fit, "--hold-out", "A", "--hold-out-covariate", "p1", "--out", tmp_path / "run")

    assert code == 0, err
    assert mp.models.load(tmp_path / "run").metadata_.rule.label == "A, p1"
    code, _, err = run(*fit, "--hold-out-covariate", "p3", "--out", tmp_path / "other")
    assert code == 2
    assert "there is no level of the covariate 'p3'" in err
    both = ("fit", tmp_path / "data.h5ad", "--model", "mean-shift", *keys, "--context-key", "donor")
    code, _, err = run(*both, "--hold-out", "A | p1", "--out", tmp_path / "both")
    assert code == 0, err
