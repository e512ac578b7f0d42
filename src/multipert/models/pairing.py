"""Optimal-transport pairs: for each control cell, the perturbed cell of its own context that it would have become."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

if TYPE_CHECKING:
    from multipert.data import PerturbationData

Coordinates = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

N_COMPONENTS = 50
"""Principal components in which cells are compared."""

AT_ONCE = 4_000
"""Cells of a context, in control and under the perturbation (geometric mean), up to which its pairing is exact."""

_DENSE_SIZE = 500  # cells or genes, the fewer, up to which principal components are found densely
_PIVOTS = 1_000_000_000  # of the network simplex: never the reason to stop


@dataclass(frozen=True, eq=False)
class Pairs:
    """Control cells and their partners.

    Attributes
    ----------
    control
        (pairs,) rows of the control cells; a cell comes once for each perturbation its context has.
    partner
        (pairs,) rows of their perturbed partners, of the same context.
    condition
        (pairs,) the partners' condition.
    """

    control: Rows
    partner: Rows
    condition: Rows

    def __len__(self) -> int:
        return len(self.control)


def pair(data: PerturbationData, rows: Rows, *, at_once: int = AT_ONCE, seed: int = 0) -> Pairs:
    """Pair the control cells of every context with its perturbed cells, for each perturbation, by optimal transport.

    With a covariate (donor, batch), cells are paired within its levels.

    The control and perturbed cells of a context are compared by Euclidean distance in the principal components (50)
    of both together. The transport plan that moves the ones onto the others, all cells weighing the same, at least
    cost, is exact (network simplex). A control cell's partner is the perturbed cell that takes most of its mass; of
    several that take as much, the nearest.

    Parameters
    ----------
    data
        The cells.
    rows
        (chosen,) the cells that take part. Contexts to leave out are left out of it.
    at_once
        The largest plan found exactly, as its cells on a side (the geometric mean of both). See Notes.
    seed
        Of the division of larger contexts.

    Returns
    -------
    Pairs
        By condition, then context, then level of the covariate, then row of the control cell. A context (or a level in
        it) that lacks control or perturbed cells among ``rows`` has none.

    Notes
    -----
    An exact plan takes memory as the product of its sides, and time a little more steeply: 15 s and 0.7 GB for 4,000 x
    4,000 cells, which makes above 15 GB and a quarter of an hour for 20,000 x 20,000. Above ``at_once``, both sides are
    therefore divided at random into the same number of equal blocks, each a sample of its side, and paired block by
    block (minibatch optimal transport, Fatras 2020): 20,000 x 20,000 cells take under 2 minutes, in a process that
    never exceeds 1.3 GB. Of a context only the components, and the costs and plan of one block, are held densely. Of
    cells on disk, a sample of at most 20,000 of each side takes part (:meth:`PerturbationData.sample`).

    References
    ----------
    Bonneel et al., Displacement interpolation using Lagrangian mass transport, 2011 (the network simplex in POT).
    Fatras et al., Learning with minibatch Wasserstein, AISTATS 2020.
    """
    rng = np.random.default_rng(seed)
    none = np.array([], dtype=np.int64)
    group = data.context * max(1, len(data.covariates)) + data.covariate
    found = [(none, none, none)]
    for condition in range(1, len(data.conditions)):
        for compared in np.unique(group):
            here = rows[group[rows] == compared]
            control, perturbed = (np.sort(here[data.condition[here] == code]) for code in (0, condition))
            if len(control) == 0 or len(perturbed) == 0:
                continue
            control, perturbed = data.sample(control), data.sample(perturbed)
            cells = principal_components(data.X[np.concatenate([control, perturbed])])
            partner = perturbed[partners(cells[: len(control)], cells[len(control) :], at_once, rng)]
            found.append((control, partner, np.full(len(control), condition)))
    return Pairs(*(np.concatenate(column) for column in zip(*found, strict=True)))


def slipped(pairs: Pairs, data: PerturbationData, rows: Rows) -> Pairs:
    """Exchange partners as the study's code did by mistake.

    A partner was found as a position among the perturbed cells of its context, but looked up at that position among the
    cells of that perturbation of all contexts together, sorted by context, in file order within. So only the first
    context's control cells keep their partners; the others get cells that are mostly of another context.

    Parameters
    ----------
    pairs
        What :func:`pair` found.
    data, rows
        What it found them in.
    """
    partner = pairs.partner.copy()
    place = np.empty(len(data), dtype=np.int64)
    for condition in np.unique(pairs.condition):
        together = np.sort(rows[data.condition[rows] == condition])
        together = together[np.argsort(data.context[together], kind="stable")]
        place[together] = np.arange(len(together))
        here = pairs.condition == condition
        first_of_context = np.searchsorted(data.context[together], data.context[partner[here]])
        partner[here] = together[place[partner[here]] - first_of_context]
    return replace(pairs, partner=partner)


def principal_components(X: csr_matrix) -> Coordinates:
    """Coordinates (cells, components) of cells ``X`` (cells, genes) in their leading principal components.

    At most 50 and fewer than cells and genes; found densely for few cells or genes, else by Lanczos iterations, which
    leave the cells sparse.
    """
    from sklearn.decomposition import PCA

    n_components = min(N_COMPONENTS, max(1, min(X.shape) - 1))
    X = X.astype(np.float64)
    if min(X.shape) <= _DENSE_SIZE:
        return np.asarray(PCA(n_components, svd_solver="full").fit_transform(X.toarray()))
    return np.asarray(PCA(n_components, svd_solver="arpack", random_state=0).fit_transform(X))


def partners(control: Coordinates, perturbed: Coordinates, at_once: int, rng: np.random.Generator) -> Rows:
    """For each of ``control`` (n, components) its partner's position in ``perturbed`` (m, components)."""
    from scipy.spatial.distance import cdist

    partner = np.empty(len(control), dtype=np.int64)
    for some, others in blocks(len(control), len(perturbed), at_once, rng):
        partner[some] = others[exact_partners(cdist(control[some], perturbed[others]))]
    return partner


def blocks(n: int, m: int, at_once: int, rng: np.random.Generator) -> Iterator[tuple[Rows, Rows]]:
    """Divide n control and m perturbed cells at random into equal blocks, of ``at_once`` on a side at most."""
    number = min(int(np.ceil(np.sqrt(n * m) / at_once)), n, m)
    if number == 1:
        yield np.arange(n), np.arange(m)
        return
    yield from zip(np.array_split(rng.permutation(n), number), np.array_split(rng.permutation(m), number), strict=True)


def exact_partners(cost: Coordinates) -> Rows:
    """For each row of ``cost`` (n, m) the column that takes most of its mass in the optimal plan of equal weights."""
    import ot

    n, m = cost.shape
    plan = ot.emd([], [], cost, numItermax=_PIVOTS)
    row, column = plan.nonzero()
    # Masses are whole multiples of 1 / (n m): as whole numbers, equal ones are equal.
    mass = np.rint(plan[row, column] * n * m)
    order = np.lexsort((cost[row, column], -mass, row))
    first = np.unique(row[order], return_index=True)[1]
    best: Rows = column[order][first]
    return best
