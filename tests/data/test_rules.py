"""What each kind of split hides from training, and what it tests on."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import given
from hypothesis import strategies as st

import multipert as mp
from multipert.data import (
    PerturbationData,
    Split,
    leave_combination_out,
    leave_context_out,
    leave_covariate_out,
    leave_dose_out,
    leave_perturbation_and_context_out,
    leave_perturbation_out,
    perturbation_folds,
    split_by,
)
from multipert.data.condition_names import members
from multipert.errors import InputError


def measured(conditions: list[str], *, doses: bool = False) -> PerturbationData:
    """Three cells of each condition for each donor in each cell type; ``name@dose`` gives a dose."""
    rows = [
        (one, cell_type, donor) for one in conditions for cell_type in "AB" for donor in ("p1", "p2") for _ in range(3)
    ]
    obs = pd.DataFrame(rows, columns=["condition", "cell_type", "donor"], index=[f"c{i}" for i in range(len(rows))])
    if doses:
        obs["dose"] = [float(one.partition("@")[2] or 0) for one in obs["condition"]]
        obs["condition"] = [one.partition("@")[0] for one in obs["condition"]]
    X = np.full((len(rows), 2), 0.5, dtype=np.float32)
    return PerturbationData.from_anndata(
        AnnData(X, obs=obs),
        perturbation_key="condition",
        control="control",
        context_key="cell_type",
        covariate_key="donor",
        dose_key="dose" if doses else None,
    )


PAIRS = measured(["control", "a", "b", "c", "a+b", "b+c"])
DOSED = measured(["control", "a@1", "a@10", "b@1", "b@10"], doses=True)


def groups(data: PerturbationData, rows: Any) -> set[tuple[str, str, str]]:
    codes = zip(data.condition[rows], data.context[rows], data.covariate[rows], strict=True)
    return {(data.conditions[p], data.contexts[c], data.covariates[d]) for p, c, d in codes}


KINDS: dict[str, tuple[PerturbationData, Callable[[], Split], Callable[[str, str, str], bool], Callable[..., bool]]] = {
    # data, split, is a group of perturbed cells in the test, is it hidden from training
    "context": (PAIRS, lambda: leave_context_out(PAIRS, "A"), lambda p, c, d: c == "A", lambda p, c, d: c == "A"),
    "covariate": (
        PAIRS,
        lambda: leave_covariate_out(PAIRS, "p1"),
        lambda p, c, d: d == "p1",
        lambda p, c, d: d == "p1",
    ),
    "context and covariate": (
        PAIRS,
        lambda: leave_covariate_out(PAIRS, "p1", context="A"),
        lambda p, c, d: (c, d) == ("A", "p1"),
        lambda p, c, d: (c, d) == ("A", "p1"),
    ),
    "perturbation": (
        PAIRS,
        lambda: leave_perturbation_out(PAIRS, ["a", "b+c"]),
        lambda p, c, d: p in ("a", "b+c"),
        lambda p, c, d: p in ("a", "b+c"),
    ),
    "perturbation at all doses": (
        DOSED,
        lambda: leave_perturbation_out(DOSED, "a"),
        lambda p, c, d: p.startswith("a@"),
        lambda p, c, d: p.startswith("a@"),
    ),
    "both members seen": (
        PAIRS,
        lambda: leave_combination_out(PAIRS, "a+b"),
        lambda p, c, d: p == "a+b",
        lambda p, c, d: p == "a+b",
    ),
    "one member seen": (
        PAIRS,
        lambda: leave_combination_out(PAIRS, "a+b", seen=1),
        lambda p, c, d: p == "a+b",
        lambda p, c, d: "b" in p,
    ),
    "no member seen": (
        PAIRS,
        lambda: leave_combination_out(PAIRS, "a+b", seen=0),
        lambda p, c, d: p == "a+b",
        lambda p, c, d: "a" in p or "b" in p,
    ),
    "dose": (DOSED, lambda: leave_dose_out(DOSED, 10), lambda p, c, d: "@10" in p, lambda p, c, d: "@10" in p),
    "dose of one compound": (
        DOSED,
        lambda: leave_dose_out(DOSED, 1, compound="b"),
        lambda p, c, d: p == "b@1",
        lambda p, c, d: p == "b@1",
    ),
    "perturbation and context": (
        PAIRS,
        lambda: leave_perturbation_and_context_out(PAIRS, "a", "A"),
        lambda p, c, d: (p, c) == ("a", "A"),
        lambda p, c, d: p == "a" or c == "A",
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_split_tests_on_what_it_says_and_hides_what_gives_it_away(name: str) -> None:
    data, make, tested, hidden = KINDS[name]
    split = make()
    everything = groups(data, np.arange(len(data)))
    perturbed = {group for group in everything if group[0] != "control"}

    assert groups(data, split.test) == {group for group in perturbed if tested(*group)}
    assert groups(data, split.train) == everything - {group for group in perturbed if hidden(*group)}
    assert len(np.unique(np.concatenate([split.train, split.validation, split.test]))) == len(split.train) + len(
        split.validation
    ) + len(split.test)
    if name in ("context", "covariate", "context and covariate", "perturbation", "dose", "perturbation and context"):
        assert split.kind == name
    again = split_by(data, split.rule)
    np.testing.assert_array_equal(again.train, split.train)
    np.testing.assert_array_equal(again.test, split.test)


@given(k=st.integers(2, 5), seed=st.integers(0, 9))
def test_folds_hold_every_perturbation_out_once(k: int, seed: int) -> None:
    folds = perturbation_folds(PAIRS, k, seed=seed)

    assert len(folds) == k
    tested = np.concatenate([fold.test for fold in folds])
    assert sorted(tested) == sorted(np.flatnonzero(PAIRS.condition))
    sizes = [len(fold.rule.conditions) for fold in folds]
    assert max(sizes) - min(sizes) <= 1


def test_all_doses_of_a_compound_are_in_one_fold() -> None:
    assert {fold.rule.conditions for fold in perturbation_folds(DOSED, 2)} == {("a@1", "a@10"), ("b@1", "b@10")}


@pytest.mark.parametrize("name", ["one member seen", "perturbation and context", "covariate"])
def test_a_split_is_saved_with_its_rule(tmp_path: Any, name: str) -> None:
    split = KINDS[name][1]()
    split.save(tmp_path / "split.json")

    assert Split.load(tmp_path / "split.json").rule == split.rule
    assert repr(Split.load(tmp_path / "split.json")) == repr(split)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a", ("a",)), ("a+b", ("a", "b")), ("a+b+c", ("a", "b", "c")), ("IFNg+", ("IFNg+",)), ("+", ("+",))],
)
def test_members(name: str, expected: tuple[str, ...]) -> None:
    assert members(name) == expected


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: leave_perturbation_out(PAIRS, "d"), "there is no perturbation 'd'"),
        (lambda: leave_perturbation_out(PAIRS, []), "no perturbation is named"),
        (lambda: leave_perturbation_out(PAIRS, PAIRS.perturbations), "no perturbed cell is left to learn from"),
        (lambda: leave_combination_out(PAIRS, "a"), r"'a' is no combination 'A\+B'; .*'a\+b', 'b\+c'"),
        (lambda: leave_combination_out(PAIRS, "a+b", seen=3), "seen takes 0 to 2, not 3"),
        (
            lambda: leave_combination_out(measured(["control", "a", "a+b"]), "a+b"),
            "'b' of 'a.b' was not measured alone",
        ),
        (lambda: leave_dose_out(PAIRS, 1), "have no doses"),
        (lambda: leave_dose_out(DOSED, 3), "there is no dose 3; .*'1', '10'"),
        (lambda: leave_dose_out(DOSED, 1, compound="c"), "there is no compound 'c'"),
        (lambda: leave_covariate_out(PAIRS, "p3"), "there is no level of the covariate 'p3'; .*'p1', 'p2'"),
        (lambda: perturbation_folds(PAIRS, 9), "5 perturbations cannot be divided into 9 parts: take 2 to 5"),
    ],
)
def test_what_cannot_be_held_out(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_a_perturbation_that_training_never_saw_is_not_predicted_by_its_number() -> None:
    adata = mp.simulate(n_genes=40, contexts=("A", "B"), perturbations=("alpha", "beta"), cells_per_group=20)
    data = PerturbationData.from_anndata(
        adata, perturbation_key="condition", control="control", context_key="cell_type"
    )
    model = mp.models.create("mean-shift").fit(data, leave_perturbation_out(data, "alpha"))

    assert model.metadata_.rule.unseen_conditions == ("alpha",)
    with pytest.raises(InputError, match=r"training saw no cell of 'alpha' \(it was held out\)"):
        model.predict(data.to_anndata(data.rows(condition="control")), "alpha")
