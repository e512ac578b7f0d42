"""From patients to a new patient's raw file: one command each, and the scores of preparing all cells together."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import multipert as mp
from conftest import Run
from multipert.data import preprocess

KEYS = ("--perturbation-key", "condition", "--context-key", "cell_type")
LIMITS: dict[str, Any] = {"min_counts": 0, "min_genes": 0, "n_top_genes": 100}


def simulated() -> tuple[AnnData, pd.Series, str, str]:
    """Three patients, the last of whom was sequenced twice as deeply."""
    world = mp.simulate(n_genes=300, contexts=("A", "B"), perturbations=("drug",), cells_per_group=60, seed=4)
    patient = np.resize(["p1", "p2", "new"], world.n_obs)
    obs = world.obs.assign(patient=patient)
    counts = world.layers["counts"].toarray()
    counts[patient == "new"] *= 2
    return AnnData(counts, obs=obs, var=pd.DataFrame(index=world.var_names)), obs["patient"] == "new", "control", "drug"


def tal1(folder: Path) -> tuple[AnnData, pd.Series, str, str]:
    """The knock-out in samples 1 and 2, the wild type in 3 and 4: 2 and 4 are the new animals."""
    adata = ad.read_h5ad(folder / "tal1_counts.h5ad")
    adata = adata[adata.obs["cell_type"] != "Blood progenitors 2"].copy()
    new = adata.obs["sample"].astype(str).isin(["2", "4"])
    return adata, new, "host_wt", "tal1_ko"


@pytest.mark.parametrize("source", ["simulated", "tal1_counts"])
def test_a_new_patient_scores_as_if_all_had_been_prepared_together(
    run: Run, tmp_path: Path, source: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    load: dict[str, Callable[[], tuple[AnnData, pd.Series, str, str]]] = {
        "simulated": simulated,
        "tal1_counts": lambda: tal1(request.getfixturevalue("data_folder")),
    }
    counts, new, control, drug = load[source]()
    is_control = counts.obs["condition"] == control
    absent = counts.var_names[::7]  # not measured in the new patient: all at once, that is to say zero
    counts.X = counts.X.toarray() if hasattr(counts.X, "toarray") else counts.X
    counts.X[np.ix_(new, counts.var_names.isin(absent))] = 0

    # All at once, by the library: the new patient has no say in genes and scale.
    whole = preprocess(counts, choose_on=~new.to_numpy(), **LIMITS)
    data = mp.PerturbationData.from_anndata(
        whole[~new.to_numpy()].copy(), perturbation_key="condition", control=control, context_key="cell_type"
    )
    model = mp.models.create("linear").fit(data)
    truth, known = whole[(new & ~is_control).to_numpy()].copy(), whole[(new & is_control).to_numpy()].copy()
    expected = mp.evaluate(control=known, truth=truth, predicted=model.predict(known, drug))

    # One command each: the new patient's file has genes in another order, some of them absent, and other names.
    counts[~new.to_numpy()].write_h5ad(tmp_path / "patients.h5ad")
    rng = np.random.default_rng(0)
    for name, cells in (("controls", new & is_control), ("perturbed", new & ~is_control)):
        raw = counts[cells.to_numpy()][:, rng.permutation(counts.n_vars)].copy()
        raw = raw[:, ~raw.var_names.isin(absent)].copy()
        raw.var["name"] = raw.var_names
        raw.var_names = [f"probe{i}" for i in range(raw.n_vars)]
        raw.write_h5ad(tmp_path / f"new_{name}.h5ad")
    limits = ("--min-counts", "0", "--min-genes", "0", "--genes", "100")
    zero = ("--missing-genes", "zero", "--out")
    monkeypatch.chdir(tmp_path)
    path = tmp_path
    commands = [
        ("preprocess", path / "patients.h5ad", "--out", path / "train.h5ad", *limits),
        ("fit", path / "train.h5ad", "--model", "linear", *KEYS, "--control", control, "--out", path / "run"),
        ("predict", path / "run", "--cells", path / "new_controls.h5ad", "--perturbation", drug, *zero, "p.h5ad"),
        ("preprocess", path / "new_controls.h5ad", "--like", path / "run", *zero, "c.h5ad"),
        ("preprocess", path / "new_perturbed.h5ad", "--like", path / "run", *zero, "t.h5ad"),
        ("evaluate", "--control", "c.h5ad", "--truth", "t.h5ad", "--predicted", "p.h5ad", "--out", "scores.csv"),
    ]
    for command in commands:
        code, _, err = run(*command)
        assert code == 0, err
        if command[0] == "predict":
            n_absent = int(whole.var_names.isin(absent).sum())
            assert n_absent > 5
            assert f"note: genes were matched by var['name'] ({100 - n_absent} of 100 found)" in err
            assert f"note: {n_absent} of 100 genes are missing and were taken as zero" in err

    scores = pd.read_csv(tmp_path / "scores.csv").iloc[0]
    np.testing.assert_allclose(scores[list(expected.index)], expected, rtol=1e-5, atol=1e-5)
    made = ad.read_h5ad(tmp_path / "p.h5ad").uns["multipert"]
    assert made["run"] == str(tmp_path / "run")
    assert made["scale"].startswith("raw counts, scaled to a total of")
    assert "Linear" in made["model"]
    assert list(made["perturbations"]) == [drug]


def test_a_new_patient_scaled_by_itself_is_refused(run: Run, tmp_path: Path) -> None:
    counts, new, control, drug = simulated()
    counts[~new.to_numpy()].write_h5ad(tmp_path / "patients.h5ad")
    counts[(new & (counts.obs["condition"] == control)).to_numpy()].write_h5ad(tmp_path / "new.h5ad")
    limits = ("--min-counts", "0", "--min-genes", "0")
    for name in ("patients", "new"):
        assert run("preprocess", tmp_path / f"{name}.h5ad", "--out", tmp_path / f"{name}.log.h5ad", *limits)[0] == 0
    fit = ("fit", tmp_path / "patients.log.h5ad", "--model", "mean-shift", *KEYS, "--control", control)
    assert run(*fit, "--out", tmp_path / "run")[0] == 0

    predict = ("predict", tmp_path / "run", "--cells", tmp_path / "new.log.h5ad", "--perturbation", drug)
    code, _, err = run(*predict, "--out", tmp_path / "p.h5ad")

    assert code == 2
    assert "these cells were scaled to a total of" in err
    assert "multipert preprocess COUNTS --like RUN" in err
    assert not (tmp_path / "p.h5ad").exists()
