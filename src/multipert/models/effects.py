"""From what perturbations are to what they do: effects of unseen ones as weighted sums of those that were seen.

An effect is a mean shift, (genes,). Perturbations are known by their condition vectors, (width,), the sum of those of
their members (:mod:`multipert.data.condition_vectors`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from multipert.data.condition_names import members, members_at, undosed
from multipert.models.relatives import relatives

if TYPE_CHECKING:
    from multipert.data.condition_vectors import ConditionVectors

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
        (seen, genes) squared error made of each seen perturbation when it was left out.
    """

    weights: Doubles
    squares: Doubles


def regress(
    vectors: Doubles,
    effects: Doubles,
    new: Doubles,
    *,
    around_mean: bool = True,
    smooth: bool = False,
    together: npt.NDArray[np.bool_] | None = None,
    like: Sequence[int] | None = None,
    relative: bool = False,
) -> Regression:
    """Choose a ridge regression by leaving seen perturbations out, one at a time, or with what would give it away.

    With ``K`` the kernel of the seen perturbations and ``k`` that of a new one with them (both centred), it is given
    ``a (mean + k (K + penalty)^-1 (effects - mean))``. The errors of leaving out follow from the one fit: residuals
    divided by ``1 - S_ii``, S the matrix that smooths the seen effects, or ``(1 - S_bb)^-1`` times those of all that
    are left out together. The kernel and the penalty with the smallest are taken, an infinite penalty (the mean alone)
    among them; and ``a``, between 0 and 1, is what the left-out effects have of their predictions: 0 where nothing can
    be told.

    Parameters
    ----------
    vectors, effects
        (seen, width) and (seen, genes).
    new
        (new, width).
    around_mean
        Whether effects lie around their mean; else around none, so that a zero vector has no effect.
    smooth
        Whether Gaussian kernels may be chosen beside the linear one: effects that bend with features.
    together
        (seen, seen) which are left out with each; by default it alone.
    like
        The seen perturbations whose errors choose, by default all.
    relative
        Whether these errors are taken relative to the size of the effect, so that a few strong perturbations do not
        choose for all others.
    """
    n = len(vectors)
    if n < 2:
        return Regression(np.ones((len(new), n)), effects**2)
    H = np.eye(n) - 1 / n if around_mean else np.eye(n)
    mean = np.full(n, 1 / n if around_mean else 0.0)
    counts = np.isin(np.arange(n), np.arange(n) if like is None else like).astype(np.float64)[:, None]
    if relative:
        lengths = (effects**2).sum(axis=1, keepdims=True)
        counts /= np.maximum(lengths, 1e-3 * lengths.mean() + 1e-300)  # one that does nothing does not choose alone
    best, chosen = np.inf, None
    for K, k in _kernels(vectors, new, smooth=smooth):
        sizes, axes = np.linalg.eigh(H @ K @ H)
        sizes = np.maximum(sizes, 0)
        to_new = (k - K.mean(axis=0) * around_mean) @ H
        for penalty in (*PENALTIES * max(sizes.sum() / n, 1e-300), np.inf):
            inverse = (axes / (sizes + penalty)) @ axes.T if np.isfinite(penalty) else np.zeros((n, n))
            smoother = mean + (axes * sizes) @ axes.T @ inverse @ H
            left_out = effects - _unexplained(smoother, together) @ (effects - smoother @ effects)
            size = float((counts * left_out * effects).sum() / max((counts * left_out**2).sum(), 1e-300))
            size = min(max(size, 0.0), 1.0)
            squares = (effects - size * left_out) ** 2
            if (error := float((counts * squares).sum())) < best:
                best, chosen = error, Regression(size * (mean + to_new @ inverse @ H), squares)
    assert chosen is not None
    return chosen


def _unexplained(smoother: Doubles, together: npt.NDArray[np.bool_] | None) -> Doubles:
    """What residuals are to be multiplied by, (seen, seen), for those of each perturbation when it is left out."""
    n = len(smoother)
    if together is None or together.sum() == n:
        alone: Doubles = np.diag(1 / (1 - np.diag(smoother).clip(max=1 - 1e-9)))
        return alone
    unexplained = np.zeros((n, n))
    for row, block in enumerate(map(np.flatnonzero, together)):
        if len(block) == n:  # nothing is left, and nothing is explained
            unexplained[row] = np.linalg.pinv(np.eye(n) - smoother)[row]
            continue
        inside = np.eye(len(block)) - smoother[np.ix_(block, block)]
        unexplained[row, block] = np.linalg.solve(inside.T, (block == row).astype(np.float64))
    return unexplained


def _kernels(vectors: Doubles, new: Doubles, *, smooth: bool) -> Iterator[tuple[Doubles, Doubles]]:
    """Kernels among seen perturbations, (seen, seen), and of new ones with them, (new, seen)."""
    yield vectors @ vectors.T, new @ vectors.T
    if smooth:
        among = ((vectors[:, None] - vectors) ** 2).sum(axis=-1)
        across = ((new[:, None] - vectors) ** 2).sum(axis=-1)
        typical = float(np.median(among[among > 0])) if (among > 0).any() else 1.0
        for width in (0.5, 1.0, 2.0, 4.0):
            yield np.exp(-among / (2 * width * typical)), np.exp(-across / (2 * width * typical))


def without_noise(effects: Doubles, noise: Doubles) -> Doubles:
    """What is left of effects without their sampling noise, as weights (seen, seen) that they are to be multiplied by.

    Effects of many perturbations lie near a space of few dimensions, noise does not. Each singular value ``s`` of the
    effects becomes ``sqrt((s^2 - b - 1)^2 - 4 b) / s``, and 0 below ``1 + sqrt(b)``, which noise alone reaches: the
    shrinkage with the smallest squared error (Gavish and Donoho 2017), in units of the noise's standard deviation times
    the root of the longer side of the matrix, b its shorter side over its longer.

    Parameters
    ----------
    effects, noise
        (seen, genes) and their sampling variances.
    """
    left, sizes, _ = np.linalg.svd(effects, full_matrices=False)
    longer = max(effects.shape)
    b = min(effects.shape) / longer
    unit = np.sqrt(noise.mean() * longer)
    square = (sizes / max(unit, 1e-300)) ** 2
    kept = np.sqrt(np.maximum((square - b - 1) ** 2 - 4 * b, 0)) / np.maximum(square, 1e-300)
    weights: Doubles = (left * np.where(square > (1 + np.sqrt(b)) ** 2, kept, 0)) @ left.T
    return weights


@dataclass(frozen=True, eq=False)
class PutTogether:
    """The effect of a perturbation that training never saw, made of those that it did.

    Attributes
    ----------
    weights
        (seen,): the effect is the sum of the seen ones', so weighted.
    squares
        (genes,) mean squared error of effects put together so, made with seen perturbations left out.
    """

    weights: Doubles
    squares: Doubles


def put_together(
    names: Sequence[str],
    seen: Sequence[str],
    effects: Doubles,
    doses: Mapping[str, float],
    vectors: ConditionVectors | None,
) -> dict[str, PutTogether]:
    """Put the effects of unseen perturbations together, each in the way that training perturbations support.

    - A combination whose members were seen is their sum, times one number for all combinations where leaving seen
      combinations out shows it to be better than the plain sum; or the regression's, where that errs less.
    - A dose lies on the line between its neighbours (:func:`~multipert.models.relatives.relatives`), or on the smooth
      curve of a regression from doses; whichever errs less for the seen doses that lie alike (between, below or above
      all others).
    - Any other perturbation is read off its features by :func:`regress`; of a combination, the members that were not
      seen. Where training knows nothing of a member, what is left out is left out with all that shares a member.

    Parameters
    ----------
    names
        The unseen perturbations.
    seen, effects
        The seen ones, and their effects, (seen, genes).
    doses
        The dose of each of all of them; empty without doses.
    vectors
        What perturbations are, where that is known.

    Returns
    -------
    dict
        By name; those of which nothing is known are not in it.
    """
    index = {name: row for row, name in enumerate(seen)}
    told = _by_relatives(names, index, effects, doses)
    if vectors is None:
        return told
    described = [name for name in names if not vectors.missing([name], doses)]
    alone = [part for name in described for part in members(name) if part not in index and part != name]
    asked = [name for name in dict.fromkeys([*described, *alone]) if not vectors.says_nothing_of(name, doses)]
    if not asked:
        return told
    v = vectors.of([*seen, *asked], doses, "").sum(axis=1, dtype=np.float64)
    by_number = vectors.source in ("members", "dose")
    of = [{member for member, _ in members_at(name, doses)} for name in seen]
    together = np.array([[bool(one & other) for other in of] for one in of])

    def strange(name: str) -> bool:
        """Whether training knows nothing of a member."""
        return not {member for member, _ in members_at(name, doses)} <= set[str]().union(*of)

    def like(kind: str) -> list[int]:
        """The seen perturbations of a kind, or all where these are fewer than three.

        Of combinations those that could be summed too, so that both ways are judged by the same.
        """
        rows = [row for row, one in enumerate(seen) if kind_among(one, seen, doses) == kind]
        summed = [row for row in rows if kind != "combination" or all(part in index for part in members(seen[row]))]
        return next((some for some in (summed, rows) if len(some) >= 3), list(range(len(seen))))

    cases = {name: (strange(name), kind_among(name, seen, doses)) for name in asked}
    judges = {kind: like(kind) for kind in {kind for _, kind in cases.values()}}
    read = {
        (alone, kind): regress(
            v[: len(seen)],
            effects,
            v[len(seen) :],
            around_mean=not by_number,
            smooth=not by_number,
            together=together if alone else None,
            like=judges[kind],
            relative=True,
        )
        for alone, kind in set(cases.values())
    }
    weights = {name: read[cases[name]].weights[row] for row, name in enumerate(asked)}
    for name in described:
        if name not in cases:
            continue
        parts, squares = members(name), read[cases[name]].squares[judges[cases[name][1]]].mean(axis=0)
        if name in told and told[name].squares.sum() <= squares.sum():
            continue
        if name not in told and len(parts) > 1 and name not in doses and all(p in index or p in asked for p in parts):
            rows = [np.eye(len(seen))[index[p]] if p in index else weights[p] for p in parts]
            told[name] = PutTogether(np.sum(rows, axis=0), squares * sum(p not in index for p in parts))
        else:
            told[name] = PutTogether(weights[name], squares)
    return told


def _by_relatives(
    names: Sequence[str], index: Mapping[str, int], effects: Doubles, doses: Mapping[str, float]
) -> dict[str, PutTogether]:
    """Sums of members, and lines between doses; how far both err, by leaving seen ones out."""

    def weights(name: str, known: Sequence[str]) -> Doubles | None:
        parts = relatives(name, known, doses)
        row = np.zeros(len(index))
        row[[index[part] for part in parts]] = [*parts.values()]
        return row if parts else None

    seen = list(index)
    guesses = {name: weights(name, [one for one in seen if one != name]) for name in seen}
    left_out: dict[str, list[tuple[Doubles, Doubles]]] = {}
    for name, row in guesses.items():
        if row is not None:
            left_out.setdefault(kind_among(name, seen, doses), []).append((row @ effects, effects[index[name]]))
    size, told = _size_of_sums(left_out.get("combination", [])), {}
    for name in names:
        row = weights(name, seen)
        if row is None:
            continue
        kind = kind_among(name, seen, doses)
        scale = size if kind == "combination" else 1.0
        shown = [(truth - scale * guess) ** 2 for guess, truth in left_out.get(kind, [])]
        # Where none was left out, as far off as the smallest and the largest of what is added lie apart.
        squares = np.mean(shown, axis=0) if shown else np.ptp(effects[row != 0], axis=0) ** 2 / 4
        told[name] = PutTogether(scale * row, squares)
    return told


def _size_of_sums(pairs: Sequence[tuple[Doubles, Doubles]]) -> float:
    """What sums of members are multiplied by: 1, unless left-out combinations show another number to be better."""
    if len(pairs) < 3:
        return 1.0
    inner = np.array([[guess @ truth, guess @ guess] for guess, truth in pairs])
    others = inner.sum(axis=0) - inner
    left_out = others[:, 0] / np.maximum(others[:, 1], 1e-300)
    errors = np.array(
        [
            [((truth - guess) ** 2).sum(), ((truth - size * guess) ** 2).sum()]
            for (guess, truth), size in zip(pairs, left_out, strict=True)
        ]
    ).sum(axis=0)
    total = inner.sum(axis=0)
    return float(total[0] / max(total[1], 1e-300)) if errors[1] < errors[0] else 1.0


def kind_among(name: str, seen: Sequence[str], doses: Mapping[str, float]) -> str:
    """How a perturbation lies among the seen ones: what errors of it are like."""
    if name in doses:
        compound = undosed(name)
        ladder = [doses[one] for one in seen if one != name and one in doses and undosed(one) == compound]
        if not ladder:
            return "combination" if len(members(compound)) > 1 else "single"
        return "below" if doses[name] < min(ladder) else "above" if doses[name] > max(ladder) else "between"
    return "combination" if len(members(name)) > 1 else "single"
