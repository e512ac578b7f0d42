"""Predictions made elsewhere join a study: files of cells, scored as a model's own are."""

from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
from anndata import AnnData

import multipert as mp
from conftest import Run
from multipert.benchmark import StudyResults, load_results, plan_study, read_study, run_study
from multipert.data import write_cells
from multipert.errors import InputError
from multipert.report import study_page

CELLS: dict[str, Any] = {
    "n_genes": 60,
    "contexts": ["A", "B", "C"],
    "perturbations": ["alpha", "beta"],
    "cells_per_group": 20,
}
STUDY = """
seeds = [1, 2]
models = ["resample"]
metrics = ["edist", "pearson_delta", "perturbed_pearson"]

[[datasets]]
name = "made"
path = "made.h5ad"
perturbation_key = "condition"
control = "control"
context_key = "cell_type"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cells, and what ``resample`` predicts of each context with each seed, left as another tool would leave it."""
    folder = tmp_path_factory.mktemp("elsewhere")
    write_cells(mp.simulate(**CELLS), folder / "made.h5ad")
    data = mp.PerturbationData.from_anndata(
        folder / "made.h5ad", perturbation_key="condition", control="control", context_key="cell_type"
    )
    (folder / "theirs").mkdir()
    for seed in (1, 2):
        for context in data.contexts:
            model = mp.models.create("resample", seed=seed).fit(data, mp.leave_context_out(data, context))
            controls = data.to_anndata(data.rows(condition="control", context=context))
            parts = [model.predict(controls, name) for name in data.perturbations]
            whole = anndata.concat([*parts, controls])  # the controls too, as some tools have it
            assert "multipert" not in whole.uns
            write_cells(whole, folder / "theirs" / f"{context}_{seed}.h5ad")
    return folder


def joined(folder: Path, out: Path, tables: str, said: list[str] | None = None) -> StudyResults:
    """Run the study with tables of predictions."""
    (folder / "study.toml").write_text(STUDY + tables)
    plan = plan_study(read_study(folder / "study.toml"), announce=(said if said is not None else []).append)
    assert run_study(plan, out)
    return load_results(out)


def test_a_models_predictions_read_from_files_score_as_its_own_trials(folder: Path, tmp_path: Path) -> None:
    results = joined(
        folder,
        tmp_path / "out",
        '[[predictions]]\nlabel = "theirs"\npath = "theirs/*_{seed}.h5ad"\nsource = "resample"\n',
    )
    rows = results.scores.set_index(["label", "held_out", "perturbation", "seed"]).sort_index()
    by_label = {label: rows.loc[label] for label in ("resample", "theirs")}
    metrics = list(results.metrics)
    assert len(by_label["theirs"]) == 12
    np.testing.assert_allclose(by_label["theirs"][metrics], by_label["resample"][metrics], rtol=1e-12)
    assert by_label["theirs"]["seconds_fit"].isna().all()
    summary = results.summary.set_index("label")
    np.testing.assert_allclose(
        summary.loc["theirs", metrics].astype(float), summary.loc["resample", metrics].astype(float), rtol=1e-12
    )
    page = study_page(results)
    assert "made elsewhere" in page
    assert "theirs/*_{seed}.h5ad" in page


def test_one_set_of_files_is_one_trial_for_each_context(folder: Path, tmp_path: Path) -> None:
    results = joined(folder, tmp_path / "out", '[[predictions]]\nlabel = "theirs"\npath = "theirs/{held_out}_1.h5ad"\n')
    theirs = [trial for trial in results.trials if trial.label == "theirs"]
    assert sorted((trial.held_out, trial.seed) for trial in theirs) == [("A", 1), ("B", 1), ("C", 1)]
    assert "3 of 6 trials" not in study_page(results)


def test_what_is_missing_is_said_before_any_work_and_counted(folder: Path, tmp_path: Path, run: Run) -> None:
    def without_beta(cells: AnnData) -> AnnData:
        return cells[cells.obs["condition"] != "beta"].copy()

    (folder / "some").mkdir(exist_ok=True)
    write_cells(mp.data.read_cells(folder / "theirs" / "A_1.h5ad"), folder / "some" / "A.zarr")
    write_cells(without_beta(mp.data.read_cells(folder / "theirs" / "B_1.h5ad")), folder / "some" / "B.h5ad")
    (folder / "study.toml").write_text(STUDY + '[[predictions]]\nlabel = "some"\npath = "some"\n')
    code, printed, said = run("benchmark", folder / "study.toml", "--out", tmp_path / "out", "--plan")
    assert code == 0
    assert "some lacks 2 of 3 trials, left out: B (lacks beta), C" in said
    assert "7 trials of 2 models" in printed


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ('path = "theirs"', 'predictions need a label, such as label = "CellFlow"'),
        ('label = "floor"\npath = "theirs"', "'floor' is taken"),
        ('label = "resample"\npath = "theirs"', "'resample' is taken"),
        ('label = "x"\npath = "nowhere"', "no file of cells (h5ad, zarr) is at"),
        ('label = "x"\npath = "theirs"', "both hold predictions of 'alpha' in 'A'"),
        ('label = "x"\npath = "theirs"\ndataset = "other"', "the study has no data set 'other'"),
        ('label = "x"\npath = "theirs/*_1.h5ad"\nperturbation_key = "drug"', "'drug' is not a column of obs"),
        ('label = "x"\npath = "theirs/*_1.h5ad"\nlayer = "mine"', "has no layer 'mine'"),
        ('label = "x"\npath = "genes.h5ad"', "of the 60 genes of the true cells"),
        ('label = "x"\npath = "counts.h5ad"', "raw counts"),
        ('label = "x"\npath = "made.h5ad"\nperturbation = "alpha"', "has no key 'perturbation'"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence_with_its_line(folder: Path, table: str, sentence: str) -> None:
    cells = mp.data.read_cells(folder / "theirs" / "A_1.h5ad")
    write_cells(cells[:, :50].copy(), folder / "genes.h5ad")
    cells.X = np.round(np.expm1(cells.X.toarray() if hasattr(cells.X, "toarray") else cells.X))
    write_cells(cells, folder / "counts.h5ad")
    (folder / "study.toml").write_text(f"{STUDY}[[predictions]]\n{table}\n")
    with pytest.raises(InputError) as caught:
        plan_study(read_study(folder / "study.toml"))
    assert sentence in str(caught.value)
    assert f"{folder / 'study.toml'}, line 1" in str(caught.value)
    assert "\n" not in str(caught.value)
