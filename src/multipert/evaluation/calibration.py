"""Whether a metric can tell a good prediction from a guess on given data.

Each perturbation's cells are halved. One half is the truth; from the other comes a *positive control*, what a perfect
model could hand in; from the other perturbations comes a *negative control*, what anyone could guess.

- For metrics of means the positive control is the *interpolated duplicate*: gene by gene
  ``a * half + (1 - a) * mean of all other perturbed cells``, with ``a = 1 - adjusted p`` of that gene (Welch's t, the
  half against the others). A gene that does not respond is predicted by what is known of it, not by noise. The
  negative control is the mean of all other perturbed cells; where a metric is centred on that mean, the control mean.
- For metrics of populations the positive control is the half itself, the negative one a sample of all other perturbed
  cells.

With a single perturbation the control cells stand for the others.

The *dynamic range fraction* (DRF) of a perturbation is ``(positive - negative) / (perfect - negative)``, kept within
[-1, 1]: near 0 a metric cannot tell a replicate from a guess. It is NaN where the negative control is beyond perfect.
The *bound discrimination score* (BDS) is the share of perturbations in which the positive control is the better one.

References
----------
Miller et al. 2025, bioRxiv 2025.10.20.683304 (DRF, interpolated duplicate). Schaefer et al. 2026, bioRxiv
2026.07.23.740433 (BDS; package scperteval).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.stats import t as student

from multipert.data.expression import Floats, Integers, Matrix, is_sparse
from multipert.data.scored_cells import Source, Sources
from multipert.evaluation.populations import Comparison, Population, read_comparisons
from multipert.evaluation.ranking import Moments, adjust
from multipert.evaluation.registry import Guess, Metric, choose
from multipert.evaluation.scoring import score

LEAST_DRF = 0.1
"""Dynamic range fraction (mean over perturbations) below which a metric cannot tell."""

LEAST_BDS = 0.75
"""Bound discrimination score below which a metric cannot tell."""

OTHERS = 8_192
"""Most cells that stand for all perturbed cells."""

GUESSED_CELLS = 500
"""Most cells of the others that are handed in as a guess."""

LEAST_CELLS = 4
"""Fewest cells of a perturbation that can be halved."""


@dataclass(eq=False)
class Pooled:
    """Moments of several populations together, each gene's mean and unbiased variance, (genes,)."""

    n_cells: int
    mean: Floats
    variance: Floats


@dataclass(frozen=True, eq=False)
class Duplicate:
    """The cells of one perturbation in two halves, and all that a positive or negative control is made of.

    Attributes
    ----------
    truth, half
        The half that is the truth, and the held-out half.
    control, half_control
        The control cells that either half is compared with.
    others
        Moments of a sample of the other perturbations' cells.
    others_mean
        Mean of the other perturbations' means, (genes,).
    sample
        Gives that sample.
    """

    truth: Population
    half: Population
    control: Population
    half_control: Population
    others: Moments
    others_mean: Floats
    sample: Callable[[], Population]

    @cached_property
    def interpolated(self) -> Floats:
        """The interpolated duplicate, (genes,)."""
        trust = 1 - welch_test(self.half, self.others)[1]
        blended: Floats = trust * self.half.mean + (1 - trust) * self.others_mean
        return blended

    @cached_property
    def distinct(self) -> Floats:
        """Welch's t of each gene, truth against the others, (genes,); 0 where it is undefined."""
        return welch_test(self.truth, self.others)[0]


def welch_test(first: Moments, second: Moments) -> tuple[Floats, Floats]:
    """Welch's t of each gene and its two-sided p-value, adjusted for the number of genes.

    A gene that varies in neither population has t = 0 and p = 1.
    """
    first_share, second_share = (np.maximum(cells.variance, 0) / cells.n_cells for cells in (first, second))
    share = first_share + second_share
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = (first.mean - second.mean) / np.sqrt(share)
        freedom = share**2 / (first_share**2 / max(first.n_cells - 1, 1) + second_share**2 / max(second.n_cells - 1, 1))
    statistic = np.where(np.isfinite(statistic), statistic, 0)
    p = 2 * student.sf(np.abs(statistic), np.where(np.isfinite(freedom) & (freedom > 0), freedom, 1))
    return statistic, adjust(p)


def duplicates(
    control: Matrix, groups: Mapping[str, Matrix], *, seed: int = 42, shared_controls: bool = False
) -> dict[str, Duplicate]:
    """Halve every perturbation's cells, and gather what they are to be told apart from.

    Parameters
    ----------
    control
        Control cells, (cells, genes).
    groups
        Cells of each perturbation, by name.
    seed
        Seeds the halves.
    shared_controls
        Whether both halves are compared with all control cells, as ``scperteval`` does, rather than each with its own
        half of them: shared controls put the same noise on both sides.

    Returns
    -------
    dict
        By perturbation, sorted; those of fewer than ``LEAST_CELLS`` cells are left out.
    """
    names = sorted(name for name, cells in groups.items() if cells.shape[0] >= LEAST_CELLS)
    rng = np.random.default_rng(seed)
    halves = {name: _halved(groups[name].shape[0], rng) for name in names}
    means = {name: Population(groups[name]).mean for name in names}
    total = np.sum(list(means.values()), axis=0) if names else 0.0
    controls = Population(control)
    parts = (controls, controls) if shared_controls else _parts(control, _halved(control.shape[0], rng))
    rows = _sample(groups, rng)
    sampled = {name: Population(groups[name][rows[name]]) for name in groups}
    pooled = _pool(sampled)
    found = {}
    for name in names:
        if len(groups) > 1:
            others_mean = (total - means[name]) / max(len(names) - 1, 1)
            sample = partial(_all_but, sampled, name)
            found[name] = Duplicate(*_parts(groups[name], halves[name]), *parts, pooled[name], others_mean, sample)
        else:
            found[name] = Duplicate(
                *_parts(groups[name], halves[name]), *parts, controls, controls.mean, lambda: controls
            )
    return found


def _pool(sampled: Mapping[str, Population]) -> dict[str, Pooled]:
    """For each population, the moments of all others: those of all together, less its own."""
    n = {name: cells.n_cells for name, cells in sampled.items()}
    known = {name: cells for name, cells in sampled.items() if cells.n_cells}
    sums = {name: cells.n_cells * cells.mean for name, cells in known.items()}
    squares = {name: (cells.n_cells - 1) * cells.variance + sums[name] * cells.mean for name, cells in known.items()}
    every, all_squares = np.sum(list(sums.values()), axis=0), np.sum(list(squares.values()), axis=0)
    pooled = {}
    for name in sampled:
        size = max(sum(n.values()) - n[name], 1)
        mean = (every - sums.get(name, 0)) / size
        variance = (all_squares - squares.get(name, 0) - size * mean**2) / max(size - 1, 1)
        pooled[name] = Pooled(size, mean, np.maximum(variance, 0))
    return pooled


def _all_but(sampled: Mapping[str, Population], name: str) -> Population:
    parts = [cells.X for other, cells in sampled.items() if other != name]
    return Population(sparse.vstack(parts, format="csr") if all(map(is_sparse, parts)) else np.concatenate(parts))


def _halved(n: int, rng: np.random.Generator) -> tuple[Integers, Integers]:
    order = np.arange(n)
    rng.shuffle(order)
    return np.sort(order[: n // 2]), np.sort(order[n // 2 :])


def _parts(cells: Matrix, halves: tuple[Integers, Integers]) -> tuple[Population, Population]:
    return Population(cells[halves[0]]), Population(cells[halves[1]])


def _sample(groups: Mapping[str, Matrix], rng: np.random.Generator) -> dict[str, Integers]:
    """Rows of each perturbation in a sample of all perturbed cells."""
    sizes = [cells.shape[0] for cells in groups.values()]
    chosen = np.zeros(sum(sizes), dtype=bool)
    chosen[rng.choice(len(chosen), min(len(chosen), OTHERS), replace=False)] = True
    parts = np.split(chosen, np.cumsum(sizes)[:-1])
    return {name: np.flatnonzero(part) for name, part in zip(groups, parts, strict=True)}


def dynamic_range(positive: Floats, negative: Floats, *, perfect: float, better: str) -> Floats:
    """Give the dynamic range fraction of each perturbation (see the module)."""
    sign = 1 if better == "high" else -1
    gain, room = sign * (positive - negative), sign * (perfect - negative)
    usable = np.isfinite(negative) & (room >= 0)
    # The same small number as scperteval's: 0 of a room of 0, not an error.
    fraction = np.clip(gain / (np.where(usable, room, 1) + 1e-6), -1, 1)
    return np.where(usable, fraction, np.nan)


def calibrate(
    *,
    control: Source,
    truth: Sources,
    perturbation_key: str | None = None,
    metrics: Iterable[str] | None = None,
    seed: int = 42,
    shared_controls: bool = False,
) -> pd.DataFrame:
    """Find out which metrics can tell a replicate from a guess on these cells.

    Parameters
    ----------
    control, truth, perturbation_key, metrics
        As for ``evaluate_many``; without a key, and with one truth, the perturbation is one.
    seed
        Seeds the halves.
    shared_controls
        As for ``duplicates``.

    Returns
    -------
    pandas.DataFrame
        A row for each perturbation and metric (index levels): ``positive`` and ``negative`` (the scores of the two
        controls), ``drf`` and ``wins`` (whether the positive one is the better, 1 or 0; NaN where neither has a value).
        ``summarise`` says of each metric whether it can tell.

    Raises
    ------
    InputError
        As ``evaluate_many``.
    """
    chosen = choose(metrics, several=isinstance(truth, Mapping) or perturbation_key is not None)
    comparisons = read_comparisons(control=control, truth=truth, predicted=None, perturbation_key=perturbation_key)
    return calibrate_comparisons(comparisons, chosen, seed=seed, shared_controls=shared_controls)


def calibrate_comparisons(
    comparisons: Mapping[str, Comparison], metrics: Sequence[Metric], *, seed: int = 42, shared_controls: bool = False
) -> pd.DataFrame:
    """Calibrate metrics on the control and true cells of comparisons; as ``calibrate``."""
    first = next(iter(comparisons.values()))
    groups = {name: comparison.truth.X for name, comparison in comparisons.items()}
    halved = duplicates(first.control.X, groups, seed=seed, shared_controls=shared_controls)
    everything = np.mean([comparison.truth.mean for comparison in comparisons.values()], axis=0)
    scores = {}
    for guess in dict.fromkeys(metric.guess for metric in metrics):
        alike = [metric for metric in metrics if metric.guess == guess]
        handed_in = {
            name: _handed_in(one, guess, everything, alone=len(comparisons) == 1) for name, one in halved.items()
        }
        for sign in (0, 1):
            compared = {
                name: replace(
                    first,
                    control=one.control,
                    truth=one.truth,
                    predicted=handed_in[name][sign],
                    predicted_control=one.half_control,
                )
                for name, one in halved.items()
            }
            table = score(compared, alike)[0] if compared else pd.DataFrame(columns=[metric.name for metric in alike])
            for metric in alike:
                scores[metric.name, sign] = table[metric.name].to_numpy(dtype=np.float64)
    rows = {}
    for metric in metrics:
        # Turned so that higher is better: a perfect score is then the highest of its range, or no shortfall.
        positive, negative = (-metric.shortfall(scores[metric.name, sign]) for sign in (0, 1))
        perfect = metric.range[1] if metric.better == "high" else 0.0
        table = calibrated(list(halved), positive, negative, perfect, "high")
        rows[metric.name] = table.assign(positive=scores[metric.name, 0], negative=scores[metric.name, 1])
    return pd.concat(rows, names=["metric", "perturbation"]).swaplevel()


def what_can_tell(comparisons: Mapping[str, Comparison], metrics: Sequence[Metric]) -> pd.DataFrame:
    """Say of every metric whether it can tell on the control and true cells of comparisons; as ``summarise``."""
    table = summarise(calibrate_comparisons(comparisons, metrics)).reindex([metric.name for metric in metrics])
    notes = table["note"].astype(object).fillna("cannot tell here: too few true cells to halve")
    return table.assign(can_tell=table["can_tell"].eq(True), note=notes)


def _handed_in(one: Duplicate, guess: Guess, everything: Floats, *, alone: bool) -> tuple[Population, Population]:
    """Give the positive and the negative control of one perturbation as predicted cells."""
    if guess == "cells":
        others = one.sample()
        rows = np.random.default_rng(0).permutation(others.n_cells)[:GUESSED_CELLS]
        return one.half, others.take(np.sort(rows))
    if guess == "control" or alone:
        mean = one.half_control.mean
    else:
        mean = one.others_mean if guess == "others" else everything
    return Population(one.interpolated[None, :]), Population(mean[None, :])


def calibrated(names: Sequence[str], positive: Floats, negative: Floats, perfect: float, better: str) -> pd.DataFrame:
    """Table the scores of both controls by perturbation, with ``drf`` and ``wins``."""
    wins = positive > negative if better == "high" else positive < negative
    known = np.isfinite(positive) | np.isfinite(negative)
    return pd.DataFrame(
        {
            "positive": positive,
            "negative": negative,
            "drf": dynamic_range(positive, negative, perfect=perfect, better=better),
            "wins": np.where(known, wins, np.nan),
        },
        index=pd.Index(names, name="perturbation"),
    )


def summarise(calibration: pd.DataFrame) -> pd.DataFrame:
    """Say of each metric whether it can tell on these data.

    Parameters
    ----------
    calibration
        What ``calibrate`` gives.

    Returns
    -------
    pandas.DataFrame
        A row for each metric: ``drf`` and ``bds`` (means over the perturbations where it has a value), ``can_tell``
        (DRF at least 0.1 and BDS at least 0.75) and ``note`` (what to say beside its scores: that it cannot tell, and
        where most perturbations have no value).
    """
    by_metric = calibration.groupby(level="metric", sort=False)
    wins = by_metric["wins"]
    table = pd.DataFrame({"drf": by_metric["drf"].mean(), "bds": wins.mean()})
    table["can_tell"] = (table["drf"] >= LEAST_DRF) & (table["bds"] >= LEAST_BDS)
    columns = (table["drf"], table["bds"], table["can_tell"], wins.count(), wins.size())
    table["note"] = [_note(*row) for row in zip(*columns, strict=True)]
    return table


def _note(drf: float, bds: float, can_tell: bool, known: int, number: int) -> str:
    """What must be said beside a metric's scores; an empty string when nothing."""
    if not known:
        return "cannot tell here: it has no value for any perturbation"
    rare = f"it has a value for {known} of {number} perturbations" if known < number / 2 else ""
    if can_tell:
        return rare
    why = f"cannot tell here: dynamic range {drf:.2f}, a replicate beats a guess in {bds:.0%} of cases"
    return f"{why}; {rare}" if rare else why
