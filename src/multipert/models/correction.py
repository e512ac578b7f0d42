"""What the stacked sum of terms gets wrong in the same way everywhere, told by a few shallow trees.

Every training context was predicted from the others (:mod:`.transfer`). What was missed there is learnt as a function
of what is known of a gene: how it is expressed, how it shifted elsewhere, how far contexts disagree, how noisy it is.
Genes, perturbations and left-out contexts share one function: gradient boosting (Friedman 2001) of symmetric trees,
which ask the same question of all genes at a level (Prokhorenkova et al. 2018).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt

from multipert.models.transfer import Contexts, Doubles, LeftOut

TREES, DEPTH, RATE = 60, 3, 0.1
"""How many trees, the questions of each, and the part of its answer that counts; by simulation."""
CAUTION = 1000.0
"""How many genes of no error each answer is drawn together with."""
STEPS = 16
"""Thresholds tried for a question: at quantiles of the genes, and as many where they weigh as much as they move."""
MOST_ROWS = 40_000
"""Genes of left-out contexts that are learnt from; of more, a random part."""
GUESSES = 7
"""The first of the terms, weighted shifts, are looked at one by one."""


@dataclass(frozen=True)
class Trees:
    """Trees that add up.

    Attributes
    ----------
    features, thresholds
        (trees, depth) which feature each level asks about, and above what.
    values
        (trees, 2^depth) the answers.
    """

    features: npt.NDArray[np.int64]
    thresholds: Doubles
    values: Doubles

    @classmethod
    def none(cls) -> Trees:
        """Trees that say nothing."""
        return cls(np.zeros((0, DEPTH), np.int64), np.zeros((0, DEPTH)), np.zeros((0, 2**DEPTH)))

    def __call__(self, X: Doubles) -> Doubles:
        """What they add up to for ``X`` (genes, features), (genes,)."""
        total = np.zeros(len(X))
        for features, thresholds, values in zip(self.features, self.thresholds, self.values, strict=True):
            total += values[(X[:, features] > thresholds) @ (1 << np.arange(DEPTH)[::-1])]
        return total


def features(control: Doubles, guessed: npt.NDArray[np.floating], coefficients: Doubles, others: Contexts) -> Doubles:
    """What is known of the genes of a context that is to be predicted, (genes, features).

    Parameters
    ----------
    control
        (genes,) means of its control cells.
    guessed, coefficients
        (genes, terms) and (terms,), of :mod:`.transfer`.
    others
        The contexts to learn from.
    """
    shifts = others.perturbed - others.control
    noise = np.sqrt((others.control_noise + others.perturbed_noise).mean(axis=0))
    spread = shifts.max(axis=0), shifts.min(axis=0), shifts.std(axis=0), others.control.std(axis=0)
    columns = (guessed @ coefficients, *guessed.T[:GUESSES], control, others.control.mean(axis=0), *spread, noise)
    return np.stack(columns, axis=1)


def correct(perturbations: Sequence[Sequence[LeftOut]], coefficients: Doubles) -> Trees:
    """Learn what the sum of terms misses of left-out contexts; nothing where there are not three of them.

    Parameters
    ----------
    perturbations
        The left-out contexts of each perturbation.
    coefficients
        (terms,) of the sum.
    """
    looks, missed, weights = [], [], []
    for one in chain.from_iterable(left_out for left_out in perturbations if len(left_out) > 2):
        looks.append(features(one.control, one.guesses, coefficients, one.others))
        missed.append(one.shift - one.guesses @ coefficients)
        weights.append(np.full(len(one.shift), one.weight))
    if not looks:
        return Trees.none()
    X, y, w = np.concatenate(looks), np.concatenate(missed), np.concatenate(weights)
    some = np.random.default_rng(0).permutation(len(X))[:MOST_ROWS]
    return _boost(X[some], y[some], w[some] / w[some].mean())


def _boost(X: Doubles, y: Doubles, weights: Doubles) -> Trees:
    """Trees that bring the weighted squared error of ``y`` down, one after the other."""
    n_features = X.shape[1]
    thresholds = [_thresholds(column, np.abs(X[:, 0])) for column in X.T]
    codes = [np.searchsorted(at, column) for at, column in zip(thresholds, X.T, strict=True)]
    found = Trees(np.zeros((TREES, DEPTH), np.int64), np.zeros((TREES, DEPTH)), np.zeros((TREES, 2**DEPTH)))
    left = y.copy()
    for tree in range(TREES):
        node = np.zeros(len(X), np.int64)
        for level in range(DEPTH):
            gains = [_gains(node, 2**level, codes[j], len(thresholds[j]), weights, left) for j in range(n_features)]
            feature = int(np.argmax([gain.max() for gain in gains]))
            at = int(gains[feature].argmax())
            found.features[tree, level], found.thresholds[tree, level] = feature, thresholds[feature][at]
            node = 2 * node + (codes[feature] > at)
        total, weight = (np.bincount(node, v, 2**DEPTH) for v in (weights * left, weights))
        found.values[tree] = RATE * total / (weight + CAUTION)
        left -= found.values[tree][node]
    return found


def _thresholds(column: Doubles, moves: Doubles) -> Doubles:
    order = np.argsort(column)
    at, upto = np.arange(1, STEPS) / STEPS, np.cumsum(moves[order])
    places = np.concatenate([at * len(column), np.searchsorted(upto, at * upto[-1])]).astype(np.int64)
    return np.unique(column[order[np.minimum(places, len(column) - 1)]])


def _gains(
    node: npt.NDArray[np.int64],
    n_nodes: int,
    code: npt.NDArray[np.int64],
    n_thresholds: int,
    weights: Doubles,
    left: Doubles,
) -> Doubles:
    """By how much the error would fall if all nodes were split at each threshold of a feature, (thresholds,)."""
    place, shape = node * (n_thresholds + 1) + code, (n_nodes, n_thresholds + 1)
    weight, total = (np.bincount(place, v, shape[0] * shape[1]).reshape(shape) for v in (weights, weights * left))
    below, sums = weight.cumsum(axis=1), total.cumsum(axis=1)
    above, others = below[:, -1:] - below, sums[:, -1:] - sums
    gain: Doubles = (sums**2 / (below + CAUTION) + others**2 / (above + CAUTION)).sum(axis=0)
    return gain[:-1]
