"""From what perturbations are to what they do: effects of unseen ones as weighted sums of those that were seen.

An effect is a mean shift, (genes,). Perturbations are known by their condition vectors, (width,), the sum of those of
their members (:mod:`multipert.data.condition_vectors`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]

PENALTIES = np.geomspace(1e-3, 1e3, 13)
"""Ridge penalties to choose from, in units of the mean squared distance of the vectors from their centre."""


def nearest(vectors: Doubles, new: Doubles) -> Doubles:
    """Which seen perturbation lies nearest to each new one: weights (new, seen), one of them 1."""
    apart = ((new[:, None] - vectors) ** 2).sum(axis=-1)
    weights: Doubles = np.eye(len(vectors))[apart.argmin(axis=1)]
    return weights


def reduced_rank(vectors: Doubles, effects: Doubles, new: Doubles, *, rank: int, ridge: float) -> Doubles:
    """The linear model of Ahlmann-Eltze (2025): effects of new perturbations, (new, genes).

    ``effect = G W p + b`` with b the mean effect of the seen perturbations, G (genes, rank) the principal components
    of their effects, p the vector of a perturbation from the centre of the seen ones, and
    ``W = (G'G + ridge)^-1 G' (effects - b) P (P'P + ridge)^-1``.
    """
    mean, centre = effects.mean(axis=0), vectors.mean(axis=0)
    Y, P = (effects - mean).T, vectors - centre
    left, sizes, _ = np.linalg.svd(Y, full_matrices=False)
    G = left[:, :rank][:, sizes[:rank] > 1e-10 * max(sizes[0], 1e-300)]
    inner = G.T @ Y @ P @ np.linalg.inv(P.T @ P + ridge * np.eye(P.shape[1]))
    W = np.linalg.solve(G.T @ G + ridge * np.eye(G.shape[1]), inner)
    predicted: Doubles = mean + (new - centre) @ W.T @ G.T
    return predicted


@dataclass(frozen=True, eq=False)
class Regression:
    """A ridge regression from condition vectors to effects, as weights of the seen perturbations.

    Attributes
    ----------
    weights
        (new, seen): the effect of a new perturbation is the sum of the seen ones', so weighted.
    squares
        (genes,) mean squared error made with each seen perturbation left out.
    """

    weights: Doubles
    squares: Doubles


def regress(vectors: Doubles, effects: Doubles, new: Doubles) -> Regression:
    """Choose penalty and size of a ridge regression by leaving seen perturbations out, one at a time.

    With ``K`` the inner products of the centred vectors, a perturbation is given
    ``a (mean + k (K + penalty)^-1 (effects - mean))``. The errors of leaving out follow from the one fit: residuals
    divided by ``1 - S_ii``, S the matrix that smooths the seen effects. Of the penalties the one with the smallest is
    taken, an infinite one (the mean alone) among them; and ``a``, between 0 and 1, is what the left-out effects have
    of their predictions: 0 where nothing can be told.

    Parameters
    ----------
    vectors, effects
        (seen, width) and (seen, genes).
    new
        (new, width).
    """
    n = len(vectors)
    centre = vectors.mean(axis=0)
    apart, to_new = vectors - centre, new - centre
    K = apart @ apart.T
    scale = max(float(np.diag(K).mean()), 1e-300)
    sizes, axes = np.linalg.eigh(K)
    sizes = np.maximum(sizes, 0)
    if n < 2:
        return Regression(np.ones((len(new), n)), effects[0] ** 2)
    best = (np.inf, 1.0, np.empty(0), np.empty(0))
    for penalty in (*PENALTIES * scale, np.inf):
        smooth = 1 / n + (axes * (sizes / (sizes + penalty))) @ axes.T
        residual = (effects - smooth @ effects) / (1 - np.diag(smooth).clip(max=1 - 1e-9))[:, None]
        left_out = effects - residual
        size = float((left_out * effects).sum() / max((left_out**2).sum(), 1e-300))
        size = min(max(size, 0.0), 1.0)
        squares = ((effects - size * left_out) ** 2).mean(axis=0)
        if squares.sum() < best[0]:
            inverse = (axes / (sizes + penalty)) @ axes.T if np.isfinite(penalty) else np.zeros_like(K)
            best = (float(squares.sum()), size, inverse, squares)
    _, size, inverse, squares = best
    dual = to_new @ apart.T @ inverse
    weights: Doubles = size * (1 / n + dual - dual.mean(axis=1, keepdims=True))
    return Regression(weights, squares)
