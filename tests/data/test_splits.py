import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import given
from hypothesis import strategies as st

from multipert.data import PerturbationData, Split, leave_context_out, train_on_everything
from multipert.errors import InputError


def labelled(pairs: list[tuple[str, str]]) -> PerturbationData:
    """Cells that are nothing but a condition and a context."""
    obs = pd.DataFrame(pairs, columns=["condition", "cell_type"], index=[f"c{i}" for i in range(len(pairs))])
    X = np.full((len(pairs), 1), 0.5, dtype=np.float32)
    return PerturbationData.from_anndata(
        AnnData(X, obs=obs), perturbation_key="condition", control="control", context_key="cell_type"
    )


@given(
    st.lists(st.tuples(st.sampled_from(["control", "a", "b"]), st.sampled_from("ABC")), max_size=60).map(
        # whatever else there is, these five make the split possible
        lambda pairs: [("control", "A"), *pairs, ("a", "A"), ("a", "B"), ("control", "B"), ("b", "A")]
    )
)
def test_a_split_holds_out_what_it_should(pairs: list[tuple[str, str]]) -> None:
    data = labelled(pairs)
    split = leave_context_out(data, "A")

    everyone = np.concatenate([split.train, split.validation, split.test])
    assert sorted(everyone) == list(range(len(data)))
    perturbed_in_a = [
        row for row, (condition, context) in enumerate(pairs) if context == "A" and condition != "control"
    ]
    assert split.test.tolist() == perturbed_in_a
    for group in set(pairs) - {pairs[row] for row in perturbed_in_a}:
        rows = [row for row, pair in enumerate(pairs) if pair == group]
        n_train = max(1, 4 * len(rows) // 5)
        assert [row for row in rows if row in set(split.train)] == rows[:n_train]
        assert [row for row in rows if row in set(split.validation)] == rows[n_train:]
    for part in (split.train, split.validation, split.test):
        assert part.dtype == np.int64
        assert (np.diff(part) > 0).all()


def test_kang_without_b_cells(kang_path: Path) -> None:
    data = PerturbationData.from_anndata(
        kang_path, perturbation_key="condition", control="control", context_key="cell_type"
    )

    split = leave_context_out(data, "B")

    np.testing.assert_array_equal(split.test, data.rows(condition="stimulated", context="B"))
    assert set(data.rows(condition="control", context="B")) <= {*split.train, *split.validation}
    assert len(split.train) == pytest.approx(0.8 * (len(data) - len(split.test)), abs=14)


def test_every_cell_can_train(data: PerturbationData) -> None:
    split = train_on_everything(data)

    assert split.train.tolist() == list(range(len(data)))
    assert len(split.validation) == len(split.test) == 0
    assert split.held_out is None


@pytest.mark.parametrize("held_out", ["B", None])
def test_a_saved_split_is_read_back(tmp_path: Path, data: PerturbationData, held_out: str | None) -> None:
    split = train_on_everything(data) if held_out is None else leave_context_out(data, held_out)
    split.save(tmp_path / "split.json")

    again = Split.load(tmp_path / "split.json")

    for part in ("train", "validation", "test"):
        np.testing.assert_array_equal(getattr(again, part), getattr(split, part))
        assert getattr(again, part).dtype == np.int64
    assert (again.held_out, again.fingerprint) == (split.held_out, split.fingerprint)
    again.check(data)
    assert repr(again) == repr(split)


def test_a_split_reads_as_a_sentence(data: PerturbationData) -> None:
    assert repr(leave_context_out(data, "B")) == "Split: 56 train, 14 validate, 20 held out (B)"


def test_a_split_is_refused_for_other_data(data: PerturbationData) -> None:
    split = train_on_everything(labelled([("control", "A"), ("a", "A")]))

    with pytest.raises(InputError, match="this split was made for other data"):
        split.check(data)


@pytest.mark.parametrize("content", ["", "[1, 2]", "{}", '{"format": "multipert split 1"}', "\x89PNG"])
def test_a_file_that_is_no_split_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "split.json").write_text(content)

    with pytest.raises(InputError, match=r"split\.json is no split: write one with Split\.save"):
        Split.load(tmp_path / "split.json")


def test_a_split_with_odd_rows_is_refused(tmp_path: Path, data: PerturbationData) -> None:
    path = tmp_path / "split.json"
    leave_context_out(data, "B").save(path)
    content: dict[str, Any] = json.loads(path.read_text())
    content["train"] = ["one", "two"]
    path.write_text(json.dumps(content))

    with pytest.raises(InputError, match="is no split"):
        Split.load(path)


def test_an_absent_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read the split .*absent\.json: No such file"):
        Split.load(tmp_path / "absent.json")


class TestContextsThatCannotBeHeldOut:
    def test_unknown(self, data: PerturbationData) -> None:
        with pytest.raises(InputError, match=r"there is no context 'b'; did you mean 'B'\? there are 'B', 'A', 'C'"):
            leave_context_out(data, "b")

    def test_without_controls(self) -> None:
        data = labelled([("a", "A"), ("a", "B"), ("control", "B")])

        with pytest.raises(
            InputError, match="'A' has no control cells to predict from: hold out another; there is 'B'"
        ):
            leave_context_out(data, "A")

    def test_without_perturbed_cells(self) -> None:
        data = labelled([("control", "A"), ("a", "B"), ("control", "B")])

        with pytest.raises(
            InputError, match="'A' has no perturbed cells to compare with: hold out another; there is 'B'"
        ):
            leave_context_out(data, "A")

    def test_with_nothing_else_to_learn_from(self) -> None:
        data = labelled([("control", "A"), ("a", "A"), ("control", "B")])

        with pytest.raises(InputError, match="without context 'A' no perturbed cell is left to learn from"):
            leave_context_out(data, "A")
