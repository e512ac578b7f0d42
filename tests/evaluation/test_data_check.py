"""What ``check`` says of real cells, of a simulated dose study, and of a file with planted faults."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from multipert.data import Keys, PerturbationData, simulate
from multipert.errors import InputError
from multipert.evaluation.data_check import DataCheck, check
from multipert.evaluation.findings import Finding

KEYS = Keys(perturbation_key="condition", control="control", context_key="cell_type")


def one(found: DataCheck, words: str) -> Finding:
    """The one finding that says these words."""
    (finding,) = [finding for finding in found.findings if words in finding.what]
    return finding


def test_kang_can_be_predicted_everywhere(kang_path: Path) -> None:
    found = check(kang_path, KEYS)
    assert found.name == "kang_subset"
    assert (found.groups["status"] == "can be predicted").all()
    assert found.verdict[0].startswith("All 7 responses can be predicted")
    assert "stimulated in all 7 contexts" in found.verdict[0]
    assert found.groups["reproducibility"].mean() == pytest.approx(0.83, abs=0.02)
    assert found.similarity["CD14+Mono"]["FCGR3A+Mono"] > 0.9 > found.similarity["CD14+Mono"]["CD4T"]
    assert found.perturbations.loc["stimulated", "shared"] == pytest.approx(0.72, abs=0.05)
    assert found.metrics["can_tell"].drop("mean_pairwise").all()


def test_of_mcfaline_nothing_but_one_response_is_reproducible(mcfaline_path: Path) -> None:
    found = check(mcfaline_path, Keys(perturbation_key="perturbation", control="control", context_key="cell_line"))
    assert found.verdict[0].startswith("Nothing but TGFBR2 in A172 is reproducible, of 27 responses")
    assert list(found.groups.index[found.groups["status"] == "differs by context"]) == [("A172", "TGFBR2")]
    assert found.groups["reproducibility"].mean() == pytest.approx(0.05, abs=0.02)
    assert "too weak" in found.verdict[1]
    assert "a pilot" in found.verdict[2]
    assert not found.metrics["can_tell"].any()


def test_in_a_dose_study_the_low_dose_is_too_weak() -> None:
    cells = simulate(doses=(0.01, 1, 10), perturbations=["alpha"], n_genes=400, cells_per_group=120, response=1.3)
    found = check(cells, Keys(perturbation_key="compound", control="control", context_key="cell_type", dose_key="dose"))
    status = found.groups["status"].unstack("perturbation")
    assert set(status["alpha@0.01"]) <= {"too weak", "too little data"}
    assert (status["alpha@10"] == "can be predicted").all()
    assert found.perturbations["shared"].loc["alpha@10"] > 0.3


def planted() -> Any:
    """A study with every fault: batches, copies, exchanged labels, a group of five cells, mislabelled controls."""
    cells = simulate(
        n_genes=300, contexts=["A", "B", "C", "D"], perturbations=["alpha", "beta"], cells_per_group=120,
        counts_per_gene=3, response=1.5, context_specific=0.2, seed=1,
    )  # fmt: skip
    condition, context = cells.obs["condition"].astype(str).to_numpy(), cells.obs["cell_type"].astype(str).to_numpy()
    # Of D, perturbed and control cells exchanged.
    alpha, control = (condition == "alpha") & (context == "D"), (condition == "control") & (context == "D")
    beta = (condition == "beta") & (context == "D")
    condition[alpha], condition[control] = "control", "alpha"
    # Of C, five cells of beta; and a tenth of B's perturbed cells are labelled control.
    dropped = np.flatnonzero((condition == "beta") & (context == "C"))[5:]
    condition[np.flatnonzero((condition == "alpha") & (context == "B"))[:12]] = "control"
    # All of alpha comes from a batch without controls, in A.
    batch = np.array(["one", "two"])[np.arange(cells.n_obs) % 2]
    batch[(condition == "alpha") & (context == "A")] = "three"
    cells.obs = pd.DataFrame({"condition": condition, "cell_type": context, "batch": batch}, index=cells.obs_names)
    cells = cells[np.setdiff1d(np.arange(cells.n_obs), np.append(dropped, np.flatnonzero(beta)))].copy()
    # Thirty cells are there twice, ten of them under another label.
    copies = cells[np.flatnonzero((cells.obs["condition"] == "beta") & (cells.obs["cell_type"] == "A"))[:30]].copy()
    copies.obs["condition"] = ["alpha"] * 10 + ["beta"] * 20
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # names that repeat are one of the faults
        both = anndata.concat([cells, copies])
    both.X = sparse.csr_matrix(both.X)
    return both


@pytest.fixture(scope="module")
def faults() -> DataCheck:
    return check(planted(), KEYS, name="planted")


def test_a_confounded_batch_is_found(faults: DataCheck) -> None:
    finding = one(faults, "confounded with 'batch'")
    assert finding.severity == "warning"
    assert "alpha in A" in finding.what
    assert "alpha in B" not in finding.what


def test_copies_are_found(faults: DataCheck) -> None:
    finding = one(faults, "copies of another cell")
    assert finding.severity == "error"
    assert finding.what == "30 cells are copies of another cell, 10 of them under another label."
    assert one(faults, "names of cells occur more than once").severity == "note"


def test_exchanged_labels_are_found(faults: DataCheck) -> None:
    finding = one(faults, "opposite way")
    assert finding.severity == "error"
    assert "in D" in finding.what


def test_small_groups_are_found(faults: DataCheck) -> None:
    assert "beta in C (5)" in one(faults, "hold fewer than").what
    assert faults.groups.loc[("C", "beta"), "status"] == "too little data"
    assert "too little data: beta in C" in faults.verdict[1]


def test_perturbed_cells_labelled_control_are_found(faults: DataCheck) -> None:
    finding = one(faults, "Control cells that look perturbed")
    assert "B (" in finding.what


def test_a_clean_study_has_no_findings() -> None:
    found = check(simulate(n_genes=300, cells_per_group=60, counts_per_gene=3, response=1.5), KEYS)
    assert found.findings == ()


def test_depth_and_chosen_genes_are_noticed() -> None:
    cells = simulate(n_genes=300, contexts=["A"], perturbations=["alpha"], cells_per_group=60)
    cells.obs["total_counts"] = np.where(cells.obs["condition"] == "alpha", 3000.0, 1000.0)
    cells.uns["hvg"] = {"flavor": "seurat"}
    found = check(cells, KEYS)
    assert "alpha in A (3 x)" in one(found, "differ in depth").what
    assert "chosen by their variance" in one(found, "genes were chosen").what


def test_checked_cells_need_no_keys_and_a_file_needs_them(kang_path: Path) -> None:
    cells = simulate(n_genes=100, contexts=["A"], perturbations=["alpha"], cells_per_group=30)
    data = PerturbationData.read(cells, KEYS)
    assert check(data).groups.equals(check(cells, KEYS).groups)
    one_by_one = check(cells, perturbation_key="condition", control="control", context_key="cell_type")
    assert check(data).groups.equals(one_by_one.groups)
    with pytest.raises(InputError, match="context_key"):
        check(kang_path)


def test_the_order_of_cells_does_not_matter_to_what_is_certain() -> None:
    cells = simulate(n_genes=200, contexts=["A", "B"], perturbations=["alpha"], cells_per_group=50)
    shuffled = cells[np.random.default_rng(0).permutation(cells.n_obs)].copy()
    first, second = check(cells, KEYS), check(shuffled, KEYS)
    for column in ("cells", "controls", "size", "noise", "genes", "others"):
        np.testing.assert_allclose(first.groups[column], second.groups[column], rtol=1e-4)


def test_the_cells_needed_are_foreseen_from_fewer() -> None:
    def measured(n: int) -> pd.DataFrame:
        cells = simulate(
            n_genes=300, contexts=["A", "B"], perturbations=["alpha"], cells_per_group=n, response=0.6, seed=2
        )
        return check(cells, KEYS).groups

    few, many = measured(60), measured(600)
    assert (many["reproducibility"] > few["reproducibility"]).all()
    assert (np.abs(np.log(many["cells_needed"] / few["cells_needed"])) < np.log(2)).all()
