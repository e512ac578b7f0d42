"""How a gene's mean is carried over from contexts that were perturbed to one that was not.

For each perturbation every training context ``k`` has a control value ``c_k`` and a perturbed value ``p_k`` of each
gene (a mean, or a share of cells), hence a shift ``d_k = p_k - c_k``, each with the variance of its sampling noise. The
shift of a new context with control value ``c`` is a sum of a few *terms*, each a guess of its own (see
:func:`terms`), whose coefficients are the same for all genes, perturbations and contexts. The coefficients are found
by leaving out one training context at a time: stacking (Wolpert 1992), with coefficients that cannot be negative
(Breiman 1996).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]

PRIOR = {
    "uniform": 0.15,
    "similar": 0.1,
    "nearest": 0.1,
    "linear": 0.2,
    "linear, light penalty": 0.0,
    "strong": 0.5,
    "proportional": 0.45,
    "floor": 0.3,
    "common level": 0.0,
    "falls in proportion": 0.0,
    "unlike others": 0.0,
    "control noise": 0.6,
    "control noise, all contexts": 0.0,
}
"""Coefficient of each term before any context is left out. Where several contexts can be asked, they decide; the
numbers matter where there are two. They were chosen on simulated data and on pairs of contexts (one to learn from, one
to predict), where the best values hardly differ: half of a weak shift, all of a strong one, half-way to
proportional."""

ALIKE = np.isin([*PRIOR], ("uniform", "similar", "nearest", "linear", "linear, light penalty"))
"""Terms that take as much of weak shifts as of strong ones."""
STRONG = np.isin([*PRIOR], "strong")
OF_NOISE = np.array([term.startswith("control noise") for term in PRIOR])
LARGEST = 1.5
"""Bound of a coefficient."""
FROM_ONE = {"uniform": 0.7, "strong": 0.2, "proportional": 0.45, "control noise": 0.45}
"""Coefficients where there is one context to learn from, so none to leave out (see :func:`from_one`)."""
TAKES_AWAY = {"common level": 1.0, "falls in proportion": 0.75}
"""What is added to them, and to the prior of two contexts, where all that a perturbation does is to take expression
away."""
WEAK = 0.03
"""Part of the squared expression that counts as a response that takes nothing away."""
CAUTION = 5.0
"""Weight of the prior among two contexts, in units of what the left-out contexts say; it falls with the fifth power of
how many there are, less one: what is learnt from single contexts says little of how to combine two, and six speak for
themselves."""


def softmax_weights(profile: Doubles, controls: Doubles, sharpness: float) -> Doubles:
    """Weights of the contexts (contexts,), adding up to one: ``exp(sharpness r)``, r the correlation with each."""
    one, many = profile - profile.mean(), controls - controls.mean(axis=1, keepdims=True)
    size = np.linalg.norm(many, axis=1) * np.linalg.norm(one)
    r = np.divide(many @ one, size, out=np.zeros(len(many)), where=size > 0)
    unscaled = np.exp(sharpness * (r - r.max()))
    weights: Doubles = unscaled / unscaled.sum()
    return weights


def ridge_weights(profile: Doubles, controls: Doubles, penalty: float) -> Doubles:
    """Weights of the contexts (contexts,) in a ridge regression from control profile to shift; they add up to one.

    In its dual form, contexts being few and genes many; ``penalty`` is in units of the contexts' mean squared distance
    from their centre. With 1 it is the baseline ``linear``.
    """
    centre = controls.mean(axis=0)
    apart = controls - centre
    K, k = apart @ apart.T, apart @ (profile - centre)
    penalised = K + penalty * np.diag(K).mean() * np.eye(len(K))
    weights: Doubles = 1 / len(K) + np.linalg.pinv(penalised, hermitian=True) @ k
    return weights


def without_noise(shift: Doubles, noise: Doubles) -> Doubles:
    """Shrink each gene's shift by ``max(0, 1 - noise / shift^2)``, noise its sampling variance (James and Stein)."""
    square = shift**2
    kept: Doubles = shift * np.maximum(1 - np.divide(noise, square, out=np.ones_like(noise), where=square > 0), 0)
    return kept


@dataclass(frozen=True)
class Contexts:
    """What is known of the genes in contexts that were seen with and without one perturbation.

    Attributes
    ----------
    control, perturbed
        (contexts, genes) means over the cells.
    control_noise, perturbed_noise
        (contexts, genes) sampling variances of these means.
    """

    control: Doubles
    perturbed: Doubles
    control_noise: Doubles
    perturbed_noise: Doubles

    def __len__(self) -> int:
        return len(self.control)

    def of(self, chosen: npt.NDArray[np.bool_]) -> "Contexts":
        """Some of them, by a mask."""
        return Contexts(
            self.control[chosen], self.perturbed[chosen], self.control_noise[chosen], self.perturbed_noise[chosen]
        )

    def without(self, context: int) -> "Contexts":
        """All but one of them."""
        return self.of(np.arange(len(self)) != context)


def terms(control: Doubles, noise: Doubles, others: Contexts) -> Doubles:
    """The guesses of a context's shift that are added up, (genes, terms), in the order of :data:`PRIOR`.

    Parameters
    ----------
    control
        (genes,) means of the context's control cells.
    noise
        (genes,) their sampling variances.
    others
        The contexts to learn from.

    Notes
    -----
    With ``D_w = sum_k w_k d_k``, shrunk by its own sampling noise, and ``c_w = sum_k w_k c_k``:

    - *uniform*, *similar*, *nearest*, *linear* (and with a *light penalty*): ``D_w`` for equal weights, softmax of 10
      and of 40 times the correlation of control profiles, and ridge regression from control profile to shift;
    - *proportional*: what is to be added to ``D_w`` (equal weights) when expression is multiplied as it was elsewhere,
      in place of shifted: ``log1p(expm1(c) expm1(c_w + D_w) / expm1(c_w)) - (c + D_w)``.

    The others take ``w`` from *similar*:

    - *strong*: what responds strongly elsewhere does so anywhere, ``D^3 / (D^2 + s)``, s the mean of ``D^2`` over the
      genes, each weighing as much as it moves (``sum D^4 / sum D^2``);
    - *floor*: what is to be added where ``c + D_w`` would be negative;
    - *common level*: a gene that rises reaches the level it has elsewhere, ``-(c - c_w) D+ / (D+ + c_w)``;
    - *falls in proportion*: a gene that falls loses the same part of its expression, ``D- (c - c_w) / c_w``;
    - *unlike others*: what of ``c`` the training contexts do not span, ``-(c - c_linear)``, is lost;
    - *control noise*: how far ``c`` lies from the training contexts by chance, ``-(c - c_w) v / (v + t)``, with v its
      sampling variance and t how much this gene differs between contexts beyond noise; there the new context is
      thought to differ as it seems to, or (*all contexts*) no more than contexts do on average.
    """
    n = len(others)
    shift, shift_noise = others.perturbed - others.control, others.perturbed_noise + others.control_noise
    equal, similar = np.full(n, 1 / n), softmax_weights(control, others.control, 10.0)
    nearest = softmax_weights(control, others.control, 40.0)
    linear, light = (ridge_weights(control, others.control, penalty) for penalty in (1.0, 0.2))
    guesses = [without_noise(w @ shift, w**2 @ shift_noise) for w in (equal, similar, nearest, linear, light)]
    proportional = _in_proportion(control, equal @ others.control, guesses[0])
    square = guesses[1] ** 2
    strong = guesses[1] * _part(square, square + square @ square / max(square.sum(), 1e-300))
    floor = np.maximum(-(control + guesses[1]), 0)

    level, rise, fall = similar @ others.control, np.maximum(guesses[1], 0), np.minimum(guesses[1], 0)
    apart = control - level
    common = -apart * _part(rise, rise + level)
    falls = apart * _part(fall, level)
    unlike = linear @ others.control - control

    centre = (others.control.sum(axis=0) + control) / (n + 1)
    squares = ((others.control - centre) ** 2).sum(axis=0) + (control - centre) ** 2
    between = np.maximum(squares / n - (others.control_noise.sum(axis=0) + noise) / (n + 1), 0)
    seen = np.maximum(apart**2 - noise - similar**2 @ others.control_noise, 0)
    chance = [-apart * _part(noise, noise + t) for t in (np.maximum(seen, between), between)]
    return np.stack([*guesses, strong, proportional, floor, common, falls, unlike, *chance], axis=1)


def _part(part: Doubles, whole: Doubles) -> Doubles:
    """``part / whole``, 0 where there is nothing."""
    share: Doubles = np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
    return share


PSEUDO = 0.02
"""Added above and below a ratio of expression, so that a gene hardly seen has none; and the largest ratio."""
LARGEST_RATIO = 20.0


def _in_proportion(control: Doubles, level: Doubles, shift: Doubles) -> Doubles:
    """What a ratio of expression predicts beyond the shift, (genes,)."""
    ratio = (np.expm1(np.maximum(level + shift, 0)) + PSEUDO) / (np.expm1(level) + PSEUDO)
    multiplied: Doubles = np.log1p(np.expm1(control) * np.minimum(ratio, LARGEST_RATIO)) - (control + shift)
    return multiplied


@dataclass(frozen=True)
class LeftOut:
    """A training context that is predicted from the others.

    Attributes
    ----------
    contexts, place
        All contexts of a perturbation, and which of them it is.
    guesses
        (genes, terms) what :func:`terms` makes of the others.
    """

    contexts: Contexts
    place: int
    guesses: npt.NDArray[np.floating]

    @property
    def control(self) -> Doubles:
        """(genes,) means of its control cells."""
        mean: Doubles = self.contexts.control[self.place]
        return mean

    @property
    def shift(self) -> Doubles:
        """(genes,) what is to be predicted."""
        shift: Doubles = self.contexts.perturbed[self.place] - self.control
        return shift

    @property
    def others(self) -> Contexts:
        """The contexts to learn from."""
        return self.contexts.without(self.place)

    @property
    def weight(self) -> float:
        """How much it counts."""
        return weight(self.shift)


def weight(shift: Doubles) -> float:
    """How much a left-out shift counts: one over the root of its norm, so that no strong response rules alone."""
    return 1 / math.sqrt(max(float(np.linalg.norm(shift)), 1e-12))


def caution(n: int) -> float:
    """The penalty, as a share of the mean of the products, where so many contexts were left out in turn."""
    return CAUTION / (n - 1) ** 5


def leave_each_out(contexts: Contexts) -> list[LeftOut]:
    """Every context of a perturbation, left out in turn; none if there is but one."""
    known = [(contexts.control[k], contexts.control_noise[k], contexts.without(k)) for k in range(len(contexts))]
    # Guesses of all perturbations are kept at once: in half the memory.
    return [LeftOut(contexts, k, terms(*one).astype(np.float32)) for k, one in enumerate(known) if len(known) > 1]


def stack(perturbations: Sequence[Sequence[LeftOut]]) -> Doubles:
    """Find the coefficients of the terms, (terms,), by leaving out one context at a time.

    Each left-out (context, perturbation) is one set of equations ``shift = terms @ coefficients``, a gene each, with
    its weight. The penalty draws them toward :data:`PRIOR`, of which as much is taken as the left-out contexts support:
    nothing where nothing is predicted.

    Parameters
    ----------
    perturbations
        The left-out contexts of each perturbation.
    """
    prior = np.array(list(PRIOR.values()))
    products, moments = np.zeros((len(prior), len(prior))), np.zeros(len(prior))
    for one in chain.from_iterable(perturbations):
        guesses = one.guesses.astype(np.float64)
        products += one.weight * guesses.T @ guesses
        moments += one.weight * guesses.T @ one.shift
    if not np.trace(products) > 0:
        return prior
    n = max(map(len, perturbations))
    if n == 2:  # each is predicted from one, where it matters as much what is taken away
        prior = prior + _as_taken(one[0].contexts for one in perturbations if one)
    # How much of the prior: of all shifts alike, of strong ones, of what the control mean changes, and of its noise.
    parts = np.stack([prior * of for of in (ALIKE, STRONG, ~(ALIKE | STRONG | OF_NOISE), OF_NOISE)], axis=1)
    whole = np.maximum(parts.sum(axis=0), 1e-12)
    amplitude = _bounded(parts.T @ products @ parts, parts.T @ moments, [1 / whole[0], 1 / whole[1], 1, 1])
    # Of a weak shift the first part is taken, of a strong one both.
    weak, both = (_of_one_more(float(sum(amplitude[:i] * whole[:i])), n) for i in (1, 2))
    amplitude[:2] = np.array([weak, both - weak]) / whole[:2]
    penalty = caution(n) * np.trace(products) / len(prior)
    return _bounded(products + penalty * np.eye(len(prior)), moments + penalty * parts @ amplitude, LARGEST)


def from_one(perturbations: Iterable[Contexts]) -> Doubles:
    """The coefficients of the terms, (terms,), where no perturbation was seen in two contexts.

    Nothing can be left out, so they are those that predict one context best from another, by least squares over pairs
    of them: of real and simulated cells, and of the same with perturbed cells in the place of control cells. As a cell
    can only lose what it has, perturbations that take expression away are carried over in proportion, and two terms
    count as much as a perturbation does so (see :func:`part_taken`).

    Parameters
    ----------
    perturbations
        What is known of each, in one context.
    """
    return np.array([FROM_ONE.get(term, 0.0) for term in PRIOR]) + _as_taken(perturbations)


def _as_taken(perturbations: Iterable[Contexts]) -> Doubles:
    """What is added to coefficients, (terms,), as much as perturbations take away."""
    return part_taken(perturbations) * np.array([TAKES_AWAY.get(term, 0.0) for term in PRIOR])


def part_taken(perturbations: Iterable[Contexts]) -> float:
    """How much of what perturbations do is to take expression away, from 0 to 1.

    ``sum min(D, 0)^2 / sum (D^2 + 0.03 c^2)`` over genes and perturbations: of a weak response less than there seems.
    """
    falls = whole = 0.0
    for one in perturbations:
        shift = without_noise(one.perturbed - one.control, one.perturbed_noise + one.control_noise)
        falls += float((np.minimum(shift, 0) ** 2).sum())
        whole += float((shift**2 + WEAK * one.control**2).sum())
    return falls / max(whole, 1e-300)


def _of_one_more(multiple: float, n: int) -> float:
    """The best multiple of a mean of n contexts, from that of a mean of n - 1.

    With a fixed amount of variance between contexts over that of the response it is ``1 / (1 + ratio / n)``.
    """
    return 1 / (1 + (1 / multiple - 1) * (n - 1) / n) if 0 < multiple < 1 else multiple


def _bounded(products: Doubles, moments: Doubles, largest: npt.ArrayLike) -> Doubles:
    """Least squares from its normal equations, every coefficient between 0 and ``largest``."""
    from scipy.optimize import lsq_linear  # only here: it takes long to import

    products = products + 1e-9 * np.trace(products) * np.eye(len(products)) + 1e-300 * np.eye(len(products))
    root = np.linalg.cholesky(products)
    solution: Doubles = lsq_linear(root.T, np.linalg.solve(root, moments), bounds=(0, largest)).x
    return solution
