"""What is kept of cells so that a report can draw them."""

from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from multipert.benchmark.profiles import CELLS_KEPT, StoredProfiles, profile, write_profiles
from multipert.evaluation.populations import Population


@pytest.fixture(name="X")
def some_cells() -> sparse.csr_array:
    return sparse.random_array((200, 30), density=0.3, format="csr", dtype=np.float32, rng=np.random.default_rng(0))


def test_moments_are_of_all_cells_and_the_sample_is_spread_over_them(X: sparse.csr_array) -> None:
    kept = profile(Population(X), 1)
    dense = X.toarray()
    np.testing.assert_allclose(kept.mean, dense.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(kept.variance, dense.var(axis=0, ddof=1), rtol=1e-4)
    np.testing.assert_allclose(kept.fraction, (dense > 0).mean(axis=0), rtol=1e-6)
    assert kept.cells.shape == (CELLS_KEPT, 30)
    np.testing.assert_allclose(kept.cells[[0, -1]], dense[[0, -1]], atol=1e-3)


def test_dense_and_sparse_cells_are_described_alike(X: sparse.csr_array) -> None:
    one, other = profile(Population(X), 1), profile(Population(X.toarray()), 1)
    np.testing.assert_allclose(one.mean, other.mean, rtol=1e-6)
    np.testing.assert_array_equal(one.fraction, other.fraction)
    np.testing.assert_array_equal(one.cells, other.cells)


def test_many_genes_and_conditions_leave_fewer_cells() -> None:
    wide = Population(np.zeros((100, 5_000), dtype=np.float32))
    assert len(profile(wide, 10).cells) == 20
    assert len(profile(wide, 1_000).cells) == 10


def test_what_was_written_is_read_one_by_one(X: sparse.csr_array, tmp_path: Path) -> None:
    both = {"control": profile(Population(X), 2), "a/b @ 3": profile(Population(X[:5]), 2)}
    write_profiles(tmp_path / "one.npz", both)
    stored = StoredProfiles(tmp_path / "one.npz")
    assert stored.whole
    assert list(stored) == list(both)
    np.testing.assert_array_equal(stored["a/b @ 3"].cells, both["a/b @ 3"].cells)
    with pytest.raises(KeyError):
        stored["c"]


def test_intervals_are_kept_and_older_records_have_none(X: sparse.csr_array, tmp_path: Path) -> None:
    ends = np.column_stack([np.zeros(30), np.ones(30)])
    write_profiles(tmp_path / "one.npz", {"a": profile(Population(X), 1, intervals=ends)})
    np.testing.assert_array_equal(StoredProfiles(tmp_path / "one.npz")["a"].intervals, ends)
    with np.load(tmp_path / "one.npz") as file:
        older = {name: file[name] for name in file if not name.endswith("intervals")}
    np.savez(tmp_path / "older.npz", **older)
    assert StoredProfiles(tmp_path / "older.npz")["a"].intervals.shape == (0, 2)


def test_a_file_that_was_cut_off_is_not_whole(X: sparse.csr_array, tmp_path: Path) -> None:
    path = tmp_path / "one.npz"
    assert not StoredProfiles(path).whole
    write_profiles(path, {"control": profile(Population(X), 1)})
    path.write_bytes(path.read_bytes()[:-100])
    assert not StoredProfiles(path).whole
