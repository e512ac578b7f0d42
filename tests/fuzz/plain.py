"""What an answer must be, read and reckoned once more in the plainest way: no code of the package takes part."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import zarr
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Plain:
    """A file of cells read key by key.

    Attributes
    ----------
    X
        (cells, genes) float64.
    genes
        Names.
    """

    def __init__(self, path: Path) -> None:
        self.file: Any = zarr.open_group(path, mode="r") if path.suffix == ".zarr" else h5py.File(path, "r")
        self.X = matrix(self.file["X"])
        self.genes = self.names("var")
        assert len(self.genes) == self.X.shape[1]

    def names(self, table: str) -> list[str]:
        group = self.file[table]
        return texts(group[str(group.attrs["_index"])])

    def column(self, table: str, name: str) -> list[str]:
        return texts(self.file[table][name])

    def columns(self, table: str) -> dict[str, list[str]]:
        """Columns that hold texts."""
        group = self.file[table]
        found = {}
        for name in group.attrs["column-order"]:
            kind = group[name].attrs.get("encoding-type")
            if kind in ("categorical", "string-array"):
                found[str(name)] = texts(group[str(name)])
        return found


def matrix(node: Any) -> Floats:
    """A dense matrix of an array or of a sparse group, entry by entry."""
    if hasattr(node, "shape") and not hasattr(node, "keys"):
        return np.asarray(node[...], dtype=np.float64)
    n, m = (int(length) for length in node.attrs["shape"])
    data, indices, indptr = (np.asarray(node[name][...]) for name in ("data", "indices", "indptr"))
    by_row = node.attrs["encoding-type"] == "csr_matrix"
    dense = np.zeros((n, m) if by_row else (m, n))
    assert len(indptr) == len(dense) + 1
    for row, (start, stop) in enumerate(pairwise(indptr)):
        for at in range(int(start), int(stop)):
            column = int(indices[at])
            assert 0 <= column < dense.shape[1]
            dense[row, column] += float(data[at])
    return dense if by_row else dense.T


def texts(node: Any) -> list[str]:
    """The entries of an array, or of a categorical, as text."""
    if hasattr(node, "keys") and not hasattr(node, "shape"):
        if "codes" not in node:  # a nullable array
            return [str(one) for one in texts(node["values"])]
        categories = texts(node["categories"])
        codes = [int(code) for code in node["codes"][...]]
        assert all(0 <= code < len(categories) for code in codes)
        return [categories[code] for code in codes]
    values = node[...]
    return [one.decode() if isinstance(one, bytes) else str(one) for one in np.asarray(values).tolist()]


def sound(X: Floats) -> bool:
    """Whether values can be expression."""
    return X.size > 0 and bool(np.isfinite(X).all()) and X.min() >= 0


def aligned(cells: Plain, genes: list[str]) -> Floats:
    """(cells, genes) expression by the model's names, or by the column of ``var`` that has them."""
    names = cells.genes
    if 2 * sum(gene in set(names) for gene in genes) < len(genes):
        names = max([names, *cells.columns("var").values()], key=lambda names: len(set(genes) & set(names)))
    return cells.X[:, [names.index(gene) for gene in genes]]


def expected_prediction(path: Path, genes: list[str], shift: Floats, target: float) -> Floats:
    """What a mean shift makes of control cells, raw counts or log-normalised."""
    cells = Plain(path)
    assert sound(cells.X)
    assert all(label == "control" for label in cells.columns("obs").get("condition", ["control"]))
    X = aligned(cells, genes)
    if np.array_equal(cells.X, np.rint(cells.X)):
        totals = X.sum(axis=1, keepdims=True)
        X = np.log1p(X * np.divide(target, totals, out=np.zeros_like(totals), where=totals > 0))
    return np.maximum(X + shift, 0)


def expected_shifts(path: Path) -> tuple[dict[tuple[str, str], Floats], list[str]]:
    """Mean perturbed minus mean control profile, by (condition, context); and the genes."""
    cells = Plain(path)
    assert sound(cells.X)
    condition, context = (np.array(cells.column("obs", name)) for name in ("condition", "cell_type"))
    assert len(condition) == len(context) == len(cells.X)
    shifts = {}
    for what in sorted({*condition} - {"control"}):
        for where in sorted({*context}):
            here, control = (cells.X[(condition == one) & (context == where)] for one in (what, "control"))
            if len(here) and len(control):
                shifts[what, where] = here.mean(axis=0) - control.mean(axis=0)
    return shifts, cells.genes


def expected_preprocessed(path: Path) -> Floats:
    """Every cell scaled to the median total, then log1p."""
    cells = Plain(path)
    assert sound(cells.X)
    totals = cells.X.sum(axis=1, keepdims=True)
    target = np.median(totals)
    return np.log1p(cells.X * np.divide(target, totals, out=np.zeros_like(totals), where=totals > 0))


def expected_scores(control: Path, truth: Path, predicted: Path) -> dict[str, float]:
    """Two metrics of predicted cells."""
    read = [Plain(path) for path in (control, truth, predicted)]
    genes = read[1].genes
    assert all(sorted(one.genes) == sorted(genes) for one in read)
    before, true, guess = (one.X[:, [one.genes.index(gene) for gene in genes]] for one in read)
    assert sound(before)
    assert sound(true)
    assert np.isfinite(guess).all()
    assert guess.min() > -2e-3
    means = [X.mean(axis=0) for X in (before, true, np.maximum(guess, 0))]
    shifts = means[1] - means[0], means[2] - means[0]
    alike = float(np.corrcoef(*shifts)[0, 1]) if all(np.ptp(shift) > 1e-6 for shift in shifts) else 0.0
    return {"mse": float(np.mean((means[2] - means[1]) ** 2)), "pearson_delta": alike}
