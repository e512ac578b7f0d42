"""The space that distances live in: principal components of several sets of cells together.

Up to ``EXACT_SIZE`` cells or genes the components are exact, in float64: of a Gram matrix when there are fewer cells
than genes, of a covariance otherwise, both summed from blocks so that sparse cells stay sparse. Beyond it Lanczos
iterations (ARPACK, scanpy's default solver) work in the precision of the data and never form a matrix of pairs.
Coordinates are those of scanpy's ``pca`` up to the sign of a component, which no distance sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations_with_replacement, pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import eigh
from scipy.sparse.linalg import LinearOperator, svds

from multipert.data.expression import Floats, Matrix, as_dense, is_sparse, slices

N_COMPONENTS = 50

DENSE_SHARE = 0.15
"""Share of cells from which a gene is multiplied faster with its zeros than without."""

EXPRESSED_SHARE = 0.05
"""Share of cells that express a gene from which it enters scaled components."""

OUTLIER = 10.0
"""Standard deviations beyond which a scaled value is cut (scanpy's ``max_value``)."""

EXACT_SIZE = 3_000
"""Largest number of cells or of genes (the smaller counts) for which the components are exact."""


def principal_components(
    parts: Sequence[Matrix], n_components: int = N_COMPONENTS, exact_size: int = EXACT_SIZE
) -> tuple[Floats, ...]:
    """Coordinates of cells in the principal components of all of them together.

    Parameters
    ----------
    parts
        Sets of cells, each (cells, genes), sparse or dense.
    n_components
        How many; at most one fewer than the cells and than the genes (scanpy's rule), and at least one.
    exact_size
        See the module.

    Returns
    -------
    Coordinates of each set, float64, shape (cells, components).
    """
    n_cells, n_genes = sum(part.shape[0] for part in parts), parts[0].shape[1]
    smaller = min(n_cells, n_genes)
    k = min(n_components, max(1, smaller - 1))
    if smaller > exact_size:
        coordinates = _by_lanczos(parts, k)
    elif n_cells <= n_genes:
        coordinates = _by_gram(parts, k)
    else:
        coordinates = _by_covariance(parts, k)
    return tuple(np.split(coordinates, np.cumsum([part.shape[0] for part in parts])[:-1]))


def standardised(parts: Sequence[Matrix], reference: Sequence[Matrix]) -> list[Floats]:
    """Bring every gene to one scale, safe from outliers, dense.

    Parameters
    ----------
    parts
        Sets of cells, each (cells, genes), sparse or dense.
    reference
        The cells by which it is done.

    Returns
    -------
    Each set, float32, shape (cells, some genes): ``(x - mean) / standard deviation`` of the reference, kept within
    ``OUTLIER`` of 0; of the genes that at least ``EXPRESSED_SHARE`` of the reference express and that vary there (all
    that vary, where there is none such): scaled up, noise of silent genes would drown the others.
    """
    n_genes, n_cells = reference[0].shape[1], sum(part.shape[0] for part in reference)
    seen, total, squares = np.zeros(n_genes), np.zeros(n_genes), np.zeros(n_genes)
    for part in reference:
        for rows in slices(part.shape[0], width=n_genes):
            block = sparse.csr_array(part[rows])
            values = block.data.astype(np.float64)
            for sums, weights in ((seen, values > 0), (total, values), (squares, values**2)):
                sums += np.bincount(block.indices, weights=weights, minlength=n_genes)
    mean = total / n_cells
    spread = np.sqrt(np.maximum(squares / n_cells - mean**2, 0))
    varies = spread > 1e-6 * mean
    expressed = varies & (seen >= EXPRESSED_SHARE * n_cells)
    genes = np.flatnonzero(expressed if expressed.any() else varies)
    if len(genes) == 0:
        return [np.zeros((part.shape[0], 1), np.float32) for part in parts]
    scaled = [np.empty((part.shape[0], len(genes)), np.float32) for part in parts]
    for part, out in zip(parts, scaled, strict=True):
        for rows in slices(part.shape[0], width=n_genes):
            out[rows] = np.clip((as_dense(part[rows][:, genes]) - mean[genes]) / spread[genes], -OUTLIER, OUTLIER)
    return scaled


def _by_gram(parts: Sequence[Matrix], k: int) -> Floats:
    """Decompose inner products of cells: a coordinate is an eigenvector times the root of its eigenvalue."""
    gram = _inner_products(parts)
    means = gram.mean(axis=0)
    gram += means.mean() - means[:, None] - means
    values, vectors = _leading(gram, k)
    coordinates: Floats = vectors * np.sqrt(values)
    return coordinates


def _inner_products(parts: Sequence[Matrix]) -> Floats:
    """Inner products of all cells with each other, in float64.

    Of sparse cells, the genes that many express are multiplied dense, the others sparse.
    """
    stored = [part for part in parts if is_sparse(part)]
    seen = sum((np.bincount(part.indices, minlength=part.shape[1]) for part in stored), np.zeros(parts[0].shape[1]))
    often = seen > DENSE_SHARE * sum(part.shape[0] for part in stored)
    common = [as_dense(part[:, often]).astype(np.float64) for part in parts]
    # One factor of every product has its genes in rows: scipy would turn a dense one round anew for each.
    by_gene = [
        _without(part, often).T if is_sparse(part) else np.array(part.T, np.float64, order="C") for part in parts
    ]
    ends = np.cumsum([0] + [part.shape[0] for part in parts])
    spans = [slice(start, end) for start, end in pairwise(ends)]
    gram = np.empty((ends[-1], ends[-1]))

    def multiply(pair: tuple[int, int]) -> None:
        # The sparse factor comes first: scipy turns the other product into this one.
        first, second = sorted(pair, key=lambda i: not is_sparse(parts[i]))
        product = as_dense(by_gene[first].T @ by_gene[second])
        if is_sparse(parts[first]):
            product += common[first] @ common[second].T
        gram[spans[first], spans[second]] = product
        gram[spans[second], spans[first]] = product.T

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(multiply, combinations_with_replacement(range(len(parts)), 2)))
    return gram


def _without(cells: Matrix, genes: NDArray[np.bool_]) -> Matrix:
    """Sparse cells with the values of some genes left out, in float64."""
    rest = cells.astype(np.float64)
    rest.data[genes[rest.indices]] = 0
    rest.eliminate_zeros()
    return rest


def _by_covariance(parts: Sequence[Matrix], k: int) -> Floats:
    """Decompose inner products of genes: coordinates are projections on the eigenvectors."""
    n_genes = parts[0].shape[1]
    products, total = np.zeros((n_genes, n_genes)), np.zeros(n_genes)
    for part in parts:
        for rows in slices(part.shape[0], width=n_genes):
            block = part[rows].astype(np.float64)
            products += as_dense(block.T @ block)
            total += block.sum(axis=0)
    n_cells = sum(part.shape[0] for part in parts)
    mean = total / n_cells
    _, vectors = _leading(products - n_cells * np.outer(mean, mean), k)
    projected = [
        part[rows].astype(np.float64) @ vectors for part in parts for rows in slices(part.shape[0], width=n_genes)
    ]
    coordinates: Floats = np.concatenate(projected) - mean @ vectors
    return coordinates


def _leading(matrix: Floats, k: int) -> tuple[Floats, Floats]:
    """Find the largest ``k`` eigenvalues and their eigenvectors; what is rounding beside the largest becomes 0."""
    size = len(matrix)
    values, vectors = eigh(matrix, subset_by_index=[size - k, size - 1], overwrite_a=True, check_finite=False)
    noise = max(values[-1], 0) * size * np.finfo(np.float64).eps
    return np.where(values > noise, values, 0)[::-1], vectors[:, ::-1]


def _by_lanczos(parts: Sequence[Matrix], k: int) -> Floats:
    """Decompose the centred cells, which are never formed, into their leading singular vectors."""
    sizes = [part.shape[0] for part in parts]
    ends = np.cumsum(sizes)[:-1]
    dtype = np.result_type(*[part.dtype for part in parts])
    n_cells, n_genes = sum(sizes), parts[0].shape[1]
    ones = [np.ones(size, dtype=dtype) for size in sizes]
    transposed = [part.T for part in parts]
    mean = np.sum([rows @ one for rows, one in zip(transposed, ones, strict=True)], axis=0) / dtype.type(n_cells)

    def forward(vector: Floats) -> Floats:
        vector = vector.ravel().astype(dtype, copy=False)
        product: Floats = np.concatenate([part @ vector for part in parts]) - mean @ vector
        return product

    def backward(vector: Floats) -> Floats:
        vector = vector.ravel().astype(dtype, copy=False)
        products = [rows @ piece for rows, piece in zip(transposed, np.split(vector, ends), strict=True)]
        product: Floats = np.sum(products, axis=0) - mean * vector.sum()
        return product

    centred = LinearOperator((n_cells, n_genes), matvec=forward, rmatvec=backward, dtype=dtype)
    start = np.random.default_rng(0).normal(size=min(n_cells, n_genes)).astype(dtype)
    vectors, values, _ = svds(centred, k=k, solver="arpack", v0=start)
    return np.asarray((vectors * values)[:, np.argsort(values)[::-1]], dtype=np.float64)
