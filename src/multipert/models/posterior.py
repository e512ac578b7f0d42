"""How far a predicted mean may be off, and what a pilot of a few perturbed cells changes about it.

Before a perturbed cell of a context was seen, the shift of a gene there is thought to lie about its prediction, with a
variance that is learnt from the training contexts that were left out. Cells of a pilot then update it, each gene on its
own, as in any normal model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from multipert.models.transfer import OF_NOISE, Contexts, Doubles, LeftOut, softmax_weights

PRIOR_WEIGHT = 4
"""How many left-out contexts the trend over all genes is worth beside a gene's own errors."""
KNOTS = 24
"""Points by which the trend is kept."""
APART = 0.1
"""Squared error that comes with a squared difference between the controls of two contexts; by simulation."""
ENOUGH_SKILL = 0.1
"""Skill below which predicted responses are held back; where there is no response it comes out at .05 or so."""
PRIOR_CELLS = 10
"""How many cells the spread of a gene in the training contexts is worth beside that of a pilot's cells."""


@dataclass(frozen=True)
class Experience:
    """What leaving out the training contexts of one perturbation, one at a time, showed.

    Attributes
    ----------
    contexts
        How many left-out contexts there were; 0 where there is but one context, which nothing can predict.
    squares, usual
        (genes,) mean squared error of the predicted shifts, and what the trend over all genes says it is.
    expected, found
        (knots,) The trend over all genes: the squared error found at what was :func:`expected_squares`.
    skill
        By what part of what could be explained the predicted responses bring the squared error of no change down, over
        all genes and contexts; sampling noise, taken to be nine tenths of all at most, cannot be. 0 for one context.
    trust
        What predicted responses are multiplied by: 1, but less than that without :data:`ENOUGH_SKILL`, down to 0.
    """

    contexts: int
    squares: Doubles
    usual: Doubles
    expected: Doubles
    found: Doubles
    skill: float
    trust: float


def expected_squares(shift: Doubles, control: Doubles, noise: Doubles, others: Contexts) -> Doubles:
    """The squared error of a predicted shift, roughly, (genes,): the trend corrects it where contexts can be left out.

    The squared shift, the sampling noise of the controls and of the training contexts, and a part of how far the
    controls are apart. From a single context these three come true as they stand, on real and on simulated cells.
    """
    weights = softmax_weights(control, others.control, 10.0)
    sampling = noise + weights**2 @ (others.control_noise + others.perturbed_noise)
    squares: Doubles = shift**2 + sampling + APART * (control - weights @ others.control) ** 2
    return squares


def look_back(left_out: Sequence[LeftOut], coefficients: Doubles) -> Experience:
    """What the errors of two or more left-out contexts show, each predicted with the coefficients of the terms."""
    from scipy.optimize import isotonic_regression  # only here: it takes long to import

    contexts, n = left_out[0].contexts, len(left_out)
    responses = np.stack([one.guesses @ (coefficients * ~OF_NOISE) for one in left_out])
    corrections = np.stack([one.guesses @ (coefficients * OF_NOISE) for one in left_out])
    expected = np.stack(
        [
            expected_squares(response, one.control, contexts.control_noise[one.place], one.others)
            for response, one in zip(responses, left_out, strict=True)
        ]
    )
    shifts = contexts.perturbed - contexts.control
    unexplained = shifts - corrections
    before, after = _energy(unexplained), _energy(unexplained - responses)
    noise = contexts.control_noise.sum() + contexts.perturbed_noise.sum()
    skill = (before - after) / max(before - noise, 0.1 * before, 1e-300)
    trust = float(np.clip(skill / ENOUGH_SKILL, 0, 1))
    squares = (unexplained - trust * responses) ** 2
    order = np.argsort(expected, axis=None)
    rising = isotonic_regression(squares.ravel()[order]).x
    # The finer, the larger the errors are.
    at = np.sort((len(order) - np.geomspace(1, len(order), KNOTS)).astype(np.int64))
    knots = expected.ravel()[order][at], rising[at]
    usual = _trend(expected, *knots).mean(axis=0)
    return Experience(n, squares.mean(axis=0), usual, *knots, float(skill), trust)


def _trend(at: Doubles, expected: Doubles, found: Doubles) -> Doubles:
    """The trend at what was expected; beyond its last knot it goes on in proportion."""
    beyond = np.maximum(at / expected[-1], 1) if expected[-1] > 0 else 1.0
    trend: Doubles = np.interp(at, expected, found) * beyond
    return trend


def _energy(values: Doubles) -> float:
    return float((values**2).sum())


def variance(expected: Doubles, experience: Experience) -> Doubles:
    """Expected squared error of a predicted shift, (genes,): a gene's own errors, drawn toward the trend.

    Where less is expected than of left-out contexts, as beside a training context much like this one, its own errors
    count for as much less.
    """
    trend, k = _trend(expected, experience.expected, experience.found), experience.contexts
    less = np.divide(trend, experience.usual, out=np.ones_like(trend), where=experience.usual > trend)
    total: Doubles = (PRIOR_WEIGHT * trend + k * less * experience.squares) / (PRIOR_WEIGHT + k)
    return total


def half_width(variances: Doubles, contexts: int, level: float) -> Doubles:
    """Half the width of intervals that hold a mean with probability ``level``, (genes,)."""
    width: Doubles = stdtrit(contexts + PRIOR_WEIGHT, (1 + level) / 2) * np.sqrt(variances)
    return width


def pilot_noise(seen: Doubles, elsewhere: Doubles, n_cells: int) -> Doubles:
    """Sampling variance of the mean of a pilot's ``n_cells`` cells, (genes,).

    ``seen`` is the variance of each gene among them, which few cells tell badly, and ``elsewhere`` that in perturbed
    cells of the training contexts; no cells say nothing.
    """
    if n_cells == 0:
        return np.full(len(seen), np.inf)
    spread: Doubles = (PRIOR_CELLS * elsewhere + n_cells * seen) / (PRIOR_CELLS + n_cells - 1)
    return spread / n_cells


def update(shift: Doubles, variances: Doubles, seen: Doubles, noise: Doubles) -> tuple[Doubles, Doubles]:
    """What is thought of the shifts once a pilot was seen.

    Parameters
    ----------
    shift, variances
        (genes,) predicted shifts and their expected squared errors.
    seen, noise
        (genes,) mean of the pilot's cells less that of the controls, and its sampling variance; infinite noise says
        nothing, and leaves the prediction as it is.

    Returns
    -------
    tuple
        (genes,) shifts, and their variances.
    """
    total = variances + noise
    weight = np.divide(1, total, out=np.zeros_like(total), where=total > 0)
    kept = variances * weight
    updated: Doubles = shift + kept * (seen - shift)
    return updated, variances * (1 - kept)
