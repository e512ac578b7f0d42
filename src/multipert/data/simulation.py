"""A small generative world of perturbed cells, whose every mean is known."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import ndtri

from multipert.data.block_writer import write_in_blocks
from multipert.errors import InputError

_CHUNK = 512  # cells drawn at a time, dense: bounds memory
_LATENT = 3  # axes along which contexts differ
_PROGRAMMES = 8
_PROGRAMME_SHARE = 0.04  # of the genes, in each programme
_DEPTH_SPREAD = 0.35  # of the logarithm of a cell's depth
_ACTIVITY_SPREAD = 0.25  # of a cell's own activity of each programme
_DISPERSION = 0.3  # of a typical gene: variance = mean + dispersion * mean^2
_HILL = 1.5  # steepness of the dose-response
_MOST_CELLS, _MOST_GENES, _MOST_VALUES = 10**7, 10**6, 2 * 10**10  # cells x genes: tens of gigabytes


def simulate(
    *,
    n_genes: int = 1000,
    contexts: Sequence[str] = ("A", "B", "C", "D", "E"),
    perturbations: Sequence[str] = ("alpha", "beta", "gamma"),
    doses: Sequence[float] | None = None,
    cells_per_group: int | tuple[int, int] = 100,
    response: float = 1.0,
    context_specific: float = 0.5,
    counts_per_gene: float = 0.3,
    combinations: Sequence[str] = (),
    interaction: float = 0.0,
    donors: Sequence[str] = (),
    donor_effect: float = 0.3,
    depths: Mapping[str, float] | None = None,
    seed: int = 0,
) -> AnnData:
    """Draw cells from a world of gene programmes, contexts and perturbations.

    The share of a cell's counts that falls on gene `g`, in context `c` under condition `p`, is

    ``share[c, p, g] = softmax_g(base[g] + identity[c, g] + response * effect[c, p, g])``

    with ``effect = sum_k hill[p, k] * weight[p, k] * gain[c, k] * loading[k, g] + hill[p] * private[c, p, g]``, where
    ``hill = dose^1.5 / (dose^1.5 + half^1.5)`` (one without doses): a perturbation drives gene
    programmes that all contexts share and that neighbouring perturbations have in common; a context answers each
    programme with its own gain, which follows from the same latent place as its identity, and has a few genes of its
    own. Counts are negative binomial with mean ``depth[cell] * share * activity``, where depths are log-normal and
    ``activity`` is the cell's own variation along the programmes, log-normal with mean one for every gene.
    The same seed gives the same world whatever the number of cells.

    A combination ``A+B`` has the effect ``(1 + interaction) (effect[A] + effect[B])``. A donor shifts the logarithm of
    every gene's abundance by a number of its own, the same under all conditions and in all contexts.

    Parameters
    ----------
    n_genes
        At 1,000 to 7,000, and default depth, about nine values in ten are zero, as in droplet data.
    contexts
        Their names.
    perturbations
        Their names.
    doses
        The doses of every perturbation, positive; none for perturbations without a dose. The half-effective dose
        differs by perturbation and programme, within the range given.
    cells_per_group
        Cells in each (context x condition) group, or the smallest and largest number, to draw unequal groups between.
    response
        Strength of all responses; 0 for none at all.
    context_specific
        Between 0 (a perturbation changes all contexts by the same factors) and 1 (contexts share little).
    counts_per_gene
        Median depth of a cell over ``n_genes``.
    combinations
        Combinations of perturbations that are measured too, each written ``A+B``; with doses, both at the same.
    interaction
        Above 0 combinations do more than their members together (synergy), below 0 less; at -1 nothing.
    donors
        Their names; cells are dealt out to them at random. None for a single nameless one.
    donor_effect
        Standard deviation of what a donor adds to the logarithm of a gene's abundance.
    depths
        What the depth of cells is multiplied by, for names of contexts, conditions or donors: ``{"p2": 3.0}``.
    seed
        Same seed, same cells.

    Returns
    -------
    AnnData
        (cells, genes), group after group. ``X``: log1p of counts scaled to the median total, sparse float32;
        ``layers["counts"]``: the counts. ``obs``: ``condition`` (``control``, a perturbation, or ``name@dose``),
        ``cell_type`` (the context), ``depth`` (expected total), with doses ``compound`` and ``dose`` (``control`` and 0
        for controls), and with donors ``donor``. ``var["response"]``: the largest absolute log fold change of a gene's
        share, under any condition in any context.
        ``uns["truth"]``: ``contexts`` and ``conditions`` (names) and ``shares``, (contexts, conditions, genes) float64:
        the expected count of a gene in a cell is exactly its ``depth`` times this share. Shares add up to one. With
        donors, ``donors`` and ``donor_shifts``, (donors, genes): a donor's shares are ``softmax(log(share) + shift)``.

    Raises
    ------
    InputError
        Too few genes, no context or perturbation, repeated names, doses or numbers out of range.
    """
    blocks, obs, var, truth = _world(**locals())
    counts = sparse.vstack(list(blocks), format="csr")
    return AnnData(_log_normalised(counts), obs=obs, var=var, layers={"counts": counts}, uns={"truth": truth})


def simulate_to(out: str | Path, **arguments: Any) -> int:
    """Write the counts of simulated cells to a file, block by block: any number of cells in flat memory.

    Parameters
    ----------
    out
        An h5ad file or a zarr folder, by its ending. ``X`` holds what :func:`simulate` keeps in ``layers["counts"]``;
        the rest is as there.
    arguments
        Those of :func:`simulate`.

    Returns
    -------
    int
        How many cells were written.

    Raises
    ------
    InputError
        As :func:`simulate`, or the file cannot be written.
    OSError
        The disk is full.
    """
    defaults = {name: argument.default for name, argument in inspect.signature(simulate).parameters.items()}
    blocks, obs, var, truth = _world(**defaults | arguments)
    with write_in_blocks(out, len(var)) as writer:
        for block in blocks:
            writer.append(block)
        writer.finish(obs, var, {"truth": truth})
    return len(obs)


def _world(
    *,
    n_genes: int,
    contexts: Sequence[str],
    perturbations: Sequence[str],
    doses: Sequence[float] | None,
    cells_per_group: int | tuple[int, int],
    response: float,
    context_specific: float,
    counts_per_gene: float,
    combinations: Sequence[str],
    interaction: float,
    donors: Sequence[str],
    donor_effect: float,
    depths: Mapping[str, float] | None,
    seed: int,
) -> tuple[Iterator[sparse.csr_matrix], pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """What :func:`simulate` draws: blocks of counts, yet to be drawn, the tables of cells and genes, and the truth."""
    check_world(**locals())
    contexts, perturbations, doses = tuple(contexts), tuple(perturbations), None if doses is None else tuple(doses)
    # Streams of their own, so that the world does not depend on how many cells or donors are drawn from it.
    world, cells, people = np.random.default_rng(seed).spawn(3)

    base, chance = _abundance(world, n_genes)
    loading = _programmes(world, chance)
    identity, gain = _contexts(world, loading, len(contexts), context_specific)
    named = (*perturbations, *combinations)
    treatments = [("control", 0.0)] + [(name, dose) for name in named for dose in (doses or (1.0,))]
    effect = _effects(world, loading, gain, chance, perturbations, doses, context_specific)
    effect = np.concatenate([effect, *_combined(effect, perturbations, combinations, interaction)], axis=1)
    shares = _softmax(base + identity[:, None, :] + response * effect)
    dispersion = _DISPERSION * world.lognormal(0, 0.5, n_genes)

    low, high = (cells_per_group, cells_per_group) if isinstance(cells_per_group, int) else cells_per_group
    n_groups = len(contexts) * len(treatments)
    group = np.repeat(np.arange(n_groups), cells.integers(low, high, n_groups, endpoint=True))
    at_context, at_condition = np.divmod(group, len(treatments))
    conditions = ["control"] + [name if doses is None else f"{name}@{dose:g}" for name, dose in treatments[1:]]
    shifts = people.normal(0, donor_effect, (len(donors), n_genes))
    at_donor = people.integers(max(1, len(donors)), size=len(group))
    factor = np.ones(len(group))
    for names, codes in ((contexts, at_context), (conditions, at_condition), (donors, at_donor)):
        factor *= np.array([(depths or {}).get(name, 1.0) for name in names] or [1.0])[codes]
    depth = factor * cells.lognormal(np.log(counts_per_gene * n_genes), _DEPTH_SPREAD, len(group))
    counts = _draw(cells, shares, loading, dispersion, depth, group, shifts, at_donor)
    obs = pd.DataFrame(
        {
            "condition": pd.Categorical(np.array(conditions)[at_condition]),
            "cell_type": pd.Categorical(np.array(contexts)[at_context]),
            "depth": depth,
        },
        index=pd.Index([f"cell{number}" for number in range(len(depth))]),
    )
    if doses is not None:
        obs["compound"] = pd.Categorical(np.array([name for name, _ in treatments])[at_condition])
        obs["dose"] = np.array([dose for _, dose in treatments])[at_condition]
    if donors:
        obs["donor"] = pd.Categorical(np.array(donors)[at_donor])
    width = max(4, len(str(n_genes)))
    change = np.abs(np.log(shares[:, 1:]) - np.log(shares[:, :1])).max(axis=(0, 1))
    var = pd.DataFrame(
        {"response": change}, index=pd.Index([f"Gene{number:0{width}d}" for number in range(1, n_genes + 1)])
    )
    truth = {"contexts": np.array(contexts, object), "conditions": np.array(conditions, object), "shares": shares}
    if donors:
        truth |= {"donors": np.array(donors, object), "donor_shifts": shifts}
    return counts, obs, var, truth


def _abundance(rng: np.random.Generator, n_genes: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(genes,) logarithm of basal abundance, and (genes,) chance of being a gene that responds."""
    # Log-normal, at evenly spaced quantiles: no seed is ruled by one gene that drew the jackpot.
    base = 2.0 * rng.permutation(ndtri((np.arange(n_genes) + 0.5) / n_genes))
    # Responders are seen now and then, or nobody could see them respond, but do not make up the cell.
    chance = np.exp(-((base - 2) ** 2) / 4)
    return base, chance / chance.sum()


def _programmes(rng: np.random.Generator, chance: NDArray[np.float64]) -> NDArray[np.float64]:
    """(programmes, genes) loadings, mostly upward and heavy-tailed."""
    n_genes = len(chance)
    loading = np.zeros((_PROGRAMMES, n_genes))
    size = max(2, round(_PROGRAMME_SHARE * n_genes))
    for programme in loading:
        members = rng.choice(n_genes, size, replace=False, p=chance)
        programme[members] = rng.gamma(1.5, 0.6, size) * rng.choice([1, 1, 1, -1], size)
    return loading


def _contexts(
    rng: np.random.Generator, loading: NDArray[np.float64], n_contexts: int, context_specific: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(contexts, genes) what marks each context, and (contexts, programmes) how strongly it answers."""
    n_programmes, n_genes = loading.shape
    place = rng.normal(0, 1, (n_contexts, _LATENT))
    markers = rng.normal(0, 0.8, (_LATENT, n_genes)) * (rng.random((_LATENT, n_genes)) < 0.2)
    identity = place @ markers + rng.normal(0, 0.15, (n_contexts, n_genes))
    slope = rng.normal(0, 1, (_LATENT, n_programmes))
    gain = 1 + context_specific * np.tanh(place @ slope)  # between none and double
    return identity, gain


def _effects(
    rng: np.random.Generator,
    loading: NDArray[np.float64],
    gain: NDArray[np.float64],
    chance: NDArray[np.float64],
    perturbations: Sequence[str],
    doses: Sequence[float] | None,
    context_specific: float,
) -> NDArray[np.float64]:
    """(contexts, conditions, genes) change of log abundance; the first condition, control, has none."""
    (n_contexts, n_programmes), n_genes = gain.shape, loading.shape[1]
    effects = [np.zeros((n_contexts, 1, n_genes))]
    for number in range(len(perturbations)):
        weight = np.zeros(n_programmes)
        # Three programmes each, the last of which the next perturbation has too.
        weight[(2 * number + np.arange(3)) % n_programmes] = [1.0, 0.8, 0.6]
        shared = (gain * weight)[:, :, None] * loading
        private = np.zeros((n_contexts, n_genes))
        for own in private:
            members = rng.choice(n_genes, max(1, n_genes // 100), replace=False, p=chance)
            own[members] = context_specific * rng.normal(0, 1.5, len(members))
        # A half-effective dose for each programme, and one for the private genes.
        middle = rng.uniform(0.25, 0.75, n_programmes + 1)
        hill = _hill(doses, middle)
        effects.append(np.einsum("dk,ckg->cdg", hill[:, :-1], shared) + hill[None, :, -1:] * private[:, None, :])
    return np.concatenate(effects, axis=1)


def _hill(doses: Sequence[float] | None, middle: NDArray[np.float64]) -> NDArray[np.float64]:
    """(doses, curves) fraction of the full effect; ``middle`` places each half-effective dose in the log range."""
    if doses is None:
        return np.ones((1, len(middle)))
    dose = np.asarray(doses, dtype=np.float64)[:, None]
    low, high = np.log(dose.min()), np.log(dose.max())
    half = np.exp(low + middle * (high - low))
    return np.asarray(1 / (1 + (half / dose) ** _HILL))


def _softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    weights = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


def _combined(
    effect: NDArray[np.float64], perturbations: Sequence[str], combinations: Sequence[str], interaction: float
) -> Iterator[NDArray[np.float64]]:
    """For each combination its effect, (contexts, doses, genes), from those of all single conditions."""
    n_doses = (effect.shape[1] - 1) // len(perturbations)
    for combination in combinations:
        places = [1 + perturbations.index(member) * n_doses for member in combination.split("+")]
        yield (1 + interaction) * np.sum([effect[:, place : place + n_doses] for place in places], axis=0)


def _draw(
    rng: np.random.Generator,
    shares: NDArray[np.float64],
    loading: NDArray[np.float64],
    dispersion: NDArray[np.float64],
    depth: NDArray[np.float64],
    group: NDArray[np.int64],
    shifts: NDArray[np.float64],
    donor: NDArray[np.int64],
) -> Iterator[sparse.csr_matrix]:
    """Draw counts (cells, genes), block by block: depth, group (context by context) and donor of a cell are known."""
    by_group = shares.reshape(-1, shares.shape[-1])
    activity = rng.normal(0, _ACTIVITY_SPREAD, (len(group), len(loading)))
    # The mean of a log-normal is above one by this much: taken off, so that the shares stay the truth.
    excess = _ACTIVITY_SPREAD**2 / 2 * (loading**2).sum(axis=0)
    for start in range(0, len(group), _CHUNK):
        these = slice(start, start + _CHUNK)
        share = by_group[group[these]]
        if len(shifts):
            share = _softmax(np.log(share) + shifts[donor[these]])
        mean = depth[these, None] * share * np.exp(activity[these] @ loading - excess)
        # Negative binomial: a Poisson whose rate is gamma distributed.
        rate = rng.standard_gamma(np.broadcast_to(1 / dispersion, mean.shape)) * dispersion * mean
        yield sparse.csr_matrix(rng.poisson(rate).astype(np.float32))


def _log_normalised(counts: sparse.csr_matrix) -> sparse.csr_matrix:
    total = np.asarray(counts.sum(axis=1)).ravel()
    scale = np.median(total) / np.maximum(total, 1)  # a cell without counts stays without
    X = counts.copy()
    X.data = np.log1p(X.data * np.repeat(scale, np.diff(X.indptr))).astype(np.float32)
    return X


def check_world(**arguments: Any) -> None:
    """Refuse arguments that :func:`simulate` would refuse, without drawing a cell.

    Parameters
    ----------
    **arguments
        Those of :func:`simulate`; others are as by default there.

    Raises
    ------
    InputError
        As there.
    """
    defaults = {name: argument.default for name, argument in inspect.signature(simulate).parameters.items()}
    w = SimpleNamespace(**defaults | arguments)
    fewest, most = (w.cells_per_group, w.cells_per_group) if isinstance(w.cells_per_group, int) else w.cells_per_group
    n_conditions = 1 + (len(w.perturbations) + len(w.combinations)) * len(w.doses or (1,))
    n_cells = len(w.contexts) * n_conditions * most
    members = [combination.split("+") for combination in w.combinations]
    known = {*w.contexts, "control", *w.perturbations, *w.combinations, *w.donors}
    known |= {f"{name}@{dose:g}" for name in (*w.perturbations, *w.combinations) for dose in w.doses or ()}
    unknown = [name for name in w.depths or {} if name not in known]
    for wrong, message in (
        (w.n_genes < 20, f"n_genes is {w.n_genes}: at least 20 are needed for programmes of genes"),
        (not w.contexts or len(set(w.contexts)) < len(w.contexts), "contexts must be one or more different names"),
        (
            not w.perturbations or len({*w.perturbations, "control"}) <= len(w.perturbations),
            "perturbations must be one or more different names, none of them 'control'",
        ),
        (
            w.doses is not None and (len(w.doses) == 0 or min(w.doses) <= 0 or len(set(w.doses)) < len(w.doses)),
            "doses must be one or more different positive numbers: control is added by itself",
        ),
        (fewest < 1, f"cells_per_group is {w.cells_per_group}: every group needs a cell"),
        (fewest > most, f"cells_per_group goes from the fewest to the most, not from {fewest} to {most}"),
        (w.n_genes > _MOST_GENES, f"n_genes is {w.n_genes:,}: at most {_MOST_GENES:,} can be drawn"),
        (
            n_cells > _MOST_CELLS or n_cells * w.n_genes > _MOST_VALUES,
            f"that makes {n_cells:,} cells x {w.n_genes:,} genes, more than can be drawn: lower cells_per_group",
        ),
        (not 0 <= w.response <= 100, f"response is {w.response:g}: it must be from 0 to 100 (1 is typical)"),
        (not 0 <= w.context_specific <= 1, f"context_specific is {w.context_specific}: it must be between 0 and 1"),
        (w.counts_per_gene <= 0, f"counts_per_gene is {w.counts_per_gene}: it must be positive"),
        (
            len(set(w.combinations)) < len(w.combinations)
            or any(len(names) < 2 or len(set(names) & set(w.perturbations)) < len(names) for names in members),
            "combinations must be different, each of two or more perturbations: 'alpha+beta'",
        ),
        (w.interaction < -1, f"interaction is {w.interaction}: it must be -1 (nothing is left) or more"),
        (len(set(w.donors)) < len(w.donors), "donors must be different names"),
        (w.donor_effect < 0, f"donor_effect is {w.donor_effect}: it must not be negative"),
        (bool(unknown), f"depths names {unknown[:1]}, which is no context, condition or donor"),
        (any(not factor > 0 for factor in (w.depths or {}).values()), "depths must be positive factors"),
        (w.seed < 0, f"seed is {w.seed}: it must not be negative"),
    ):
        if wrong:
            raise InputError(message)
