"""Whole counts for predicted cells, as many in each cell as its control cell has."""

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix, vstack

BLOCK = 512
"""Cells whose counts are drawn at once, dense."""


def to_counts(
    predicted: npt.NDArray[np.float32], library_sizes: npt.NDArray[np.float64], rng: np.random.Generator
) -> csr_matrix:
    """Turn log-normalised cells into counts of given totals.

    ``expm1`` of a log-normalised value is a share of the cell's total, whatever total it was scaled to; shares times
    the library size are the expected counts. They are rounded by systematic sampling: every count is its expectation
    rounded up or down, without bias, and the counts of a cell add up to its library size.

    Parameters
    ----------
    predicted
        (cells, genes) log-normalised.
    library_sizes
        (cells,) whole totals, over the same genes.
    rng
        Draws one number a cell.

    Returns
    -------
    csr_matrix
        (cells, genes) float32, whole numbers.
    """
    blocks = []
    for start in range(0, len(predicted), BLOCK):
        cells = slice(start, start + BLOCK)
        expected = np.expm1(predicted[cells].astype(np.float64))
        totals = expected.sum(axis=1)
        scale = np.divide(library_sizes[cells], totals, out=np.zeros(len(totals)), where=totals > 0)
        # Whole steps stay whole: rounding of log-normalised values must not carry a count over to the next gene.
        upto = np.round(np.cumsum(expected * scale[:, None], axis=1), 4)
        steps = np.floor(upto + rng.random((len(totals), 1)))
        blocks.append(csr_matrix(np.diff(steps, axis=1, prepend=0).astype(np.float32)))
    return csr_matrix(predicted.shape, dtype=np.float32) if not blocks else vstack(blocks, format="csr")
