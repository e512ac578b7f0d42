"""The shipped studies of the three published cases, end to end on simulated files laid out like the real ones.

Everything is theirs (data sets by name, models, preset) but the length of the trainings, and how many contexts are held
out and seeds taken.
"""

import dataclasses
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from conftest import Run
from multipert.benchmark import load_results
from multipert.data import simulate
from multipert.models import model_class

STUDIES = Path(__file__).parents[2] / "studies"


def kang() -> AnnData:
    contexts = ("B", "CD14+Mono", "CD4T", "CD8T", "Dendritic", "FCGR3A+Mono", "NK")
    return simulate(n_genes=120, contexts=contexts, perturbations=["stimulated"], cells_per_group=(20, 40))


def hagai() -> AnnData:
    cells = simulate(
        n_genes=120, contexts=("mouse", "pig", "rabbit", "rat"), perturbations=["LPS6"], cells_per_group=(40, 60)
    )
    cells.obs["species"] = cells.obs.pop("cell_type")
    cells.obs["condition"] = cells.obs["condition"].cat.rename_categories({"control": "unst"})
    return cells


def nault() -> AnnData:
    """Raw counts of nuclei, some of them too poor to keep; a column of doses and none that names the compound."""
    cells = simulate(
        n_genes=2000,
        contexts=[f"liver cell {i}" for i in range(11)],
        perturbations=["TCDD"],
        doses=[0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30],
        cells_per_group=16,
        counts_per_gene=4,
    )
    enough = np.arange(cells.n_obs) >= 20
    cells.X = cells.layers["counts"].multiply(enough[:, None]).tocsr()
    cells.obs = pd.DataFrame({"celltype": cells.obs["cell_type"], "Dose": cells.obs["dose"]})
    del cells.layers["counts"], cells.uns["truth"]
    return cells


def shortened(study: Path) -> tuple[str, dict[str, Any]]:
    """The study with one seed and trainings of one epoch."""
    said = tomllib.loads(study.read_text())
    lines = [f"title = {said['title']!r}", f"preset = {said['preset']!r}", f"seeds = {said['seeds'][:1]}", "models = ["]
    for name in said["models"]:
        lengths = {"iterations": 2, "pretrain_epochs": 1, "epochs": 1}
        lengths |= {"discriminator_epochs": 1, "joint_epochs": 1, "transport_epochs": 1}
        known = {field.name for field in dataclasses.fields(model_class(name).Parameters)}
        changes = ", ".join(f"{key} = {value}" for key, value in lengths.items() if key in known)
        lines.append(f'    {{ name = "{name}", {changes} }},')
    lines += ["]", "[[datasets]]", f"name = {said['datasets'][0]['name']!r}"]
    return "\n".join(lines), said


@pytest.mark.parametrize(
    ("name", "make", "held_out", "n_perturbations"),
    [
        ("kang", kang, ["CD14+Mono", "NK"], 1),
        ("hagai", hagai, ["mouse", "rat"], 1),
        ("nault", nault, ["liver cell 3"], 8),
    ],
)
def test_a_published_case_runs_from_study_to_report(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    make: Callable[[], AnnData],
    held_out: list[str],
    n_perturbations: int,
) -> None:
    make().write_h5ad(tmp_path / f"{name}.h5ad")
    monkeypatch.setenv("MULTIPERT_DATA", str(tmp_path))
    text, said = shortened(STUDIES / f"{name}.toml")
    study, out = tmp_path / "study.toml", tmp_path / "out"
    study.write_text(f"{text}\nheld_out = {held_out}\n")
    code, printed, errors = run("benchmark", study, "--out", out)
    assert code == 0, errors
    n_models = len(said["models"])
    assert f"{n_models * len(held_out)} trials of {n_models} models on 1 data sets" in printed
    results = load_results(out)
    assert set(results.scores["perturbation"]) == set(results.datasets[0].perturbations)
    assert len(results.scores) == n_models * len(held_out) * n_perturbations
    assert np.isfinite(results.scores["edist"]).all()
    if name == "nault":
        assert results.datasets[0].n_cells < 11 * 9 * 16 - 20  # the poor are gone
        assert sorted(results.datasets[0].doses.values()) == [0, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30]

    assert run("report", out, "--out", tmp_path / "report.html")[0] == 0
    page = (tmp_path / "report.html").read_text()
    assert "vidrSingle" in page or "scvidr" in page
    for form, mark in {"md": "| ", "csv": "dataset,", "latex": r"\toprule"}.items():
        assert run("report", out, "--out", tmp_path / f"table.{form}", "--format", form)[0] == 0
        assert mark in (tmp_path / f"table.{form}").read_text()
