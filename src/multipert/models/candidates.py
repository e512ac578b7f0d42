"""Questions that are asked of a fitted model: which perturbation to take, at what dose, and which are alike to it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from multipert.data.condition_names import undosed
from multipert.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from multipert.data import PerturbationFeatures
    from multipert.models.base import Model

Doubles = npt.NDArray[np.float64]

DRAWS = 200
"""Times that control cells are drawn anew, with replacement, for an interval."""


def rank(
    models: Model | Sequence[Model],
    controls: AnnData | str | Path,
    target: AnnData | str | Path,
    perturbations: Sequence[str] | None = None,
    *,
    features: PerturbationFeatures | None = None,
    away: bool = False,
    level: float = 0.9,
    missing_genes: str = "error",
) -> pd.DataFrame:
    """Rank perturbations by how far they move control cells toward a state.

    With ``d`` the mean shift that a perturbation is predicted to make and ``s`` the difference of mean expression
    between the state and the control cells, its score is ``1 - |d - s|^2 / |s|^2``: 1 arrives, 0 is no nearer than
    before, below 0 is farther off. ``along`` is the part of the way, ``d.s / s.s``. Away from the state the score is
    ``-along``.

    Parameters
    ----------
    models
        A fitted model, or several of other seeds, which show how far training is a matter of chance.
    controls
        The cells to be moved.
    target
        Cells in the state: another cell type, healthy cells, cells under a drug.
    perturbations
        The candidates; by default all that the first model knows of (:attr:`Model.perturbations`) and all that
        ``features`` describe.
    features
        What further candidates are, a library of drugs say, as for :meth:`Model.predict`.
    away
        Whether those that move cells farthest the other way come first.
    level
        Of the interval, which holds what control cells and seeds leave open; not that a model may be wrong.
    missing_genes
        As for :meth:`Model.predict`.

    Returns
    -------
    pandas.DataFrame
        A row for each perturbation, the best first: ``score``, its interval ``low`` and ``high``, ``along``, and
        whether training saw it, ``seen``.

    Raises
    ------
    InputError
        There is no model, a perturbation is unknown, or the cells cannot be read or are in that state already.
    """
    import pandas as pd

    from multipert.data.alignment import read_aligned

    fitted = _several(models, level)
    metadata = fitted[0].metadata_
    names = list(perturbations or dict.fromkeys([*fitted[0].perturbations, *(features.names if features else ())]))
    there = read_aligned(target, metadata.space, metadata.keys, missing_genes=missing_genes).X[:]
    draws = _Draws(fitted, controls, names, features, missing_genes)
    way = np.asarray(there.mean(axis=0), dtype=np.float64).ravel() - draws.control
    length = float(way @ way)
    if np.allclose(way, 0, atol=1e-6):
        raise InputError("the control cells are in that state already: give cells of another")
    never, rows = {*names} - {*fitted[0].perturbations} | {*metadata.rule.unseen_conditions}, []
    for name in names:
        shifts = draws.shift(name)
        along = shifts @ way / length
        scores = -along if away else 1 - ((shifts - way) ** 2).sum(axis=-1) / length
        low, high = np.quantile(scores, [(1 - level) / 2, (1 + level) / 2])
        rows.append((scores.mean(), low, high, along.mean(), name not in never))
    draws.warn()
    index = pd.Index(names, name="perturbation")
    table = pd.DataFrame(rows, index=index, columns=["score", "low", "high", "along", "seen"])
    return table.sort_values("score", ascending=False, kind="stable")


def dose_response(
    models: Model | Sequence[Model],
    controls: AnnData | str | Path,
    genes: Sequence[str],
    *,
    compound: str | None = None,
    doses: Sequence[float] | None = None,
    level: float = 0.9,
    missing_genes: str = "error",
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predicted mean expression of genes along a ladder of doses, and the dose of half the largest change.

    EC50 is read off the curve: the smallest dose at which the change from dose 0 reaches half of its largest, on the
    line between neighbouring doses in the logarithm of dose; NaN where the curve is past half at the lowest dose.

    Parameters
    ----------
    models
        A fitted model with doses, or several of other seeds. Doses in between are known to those that were told of
        doses (``features="dose"``).
    controls
        The cells at dose 0.
    genes
        Whose curves.
    compound
        Which compound; the only one by default.
    doses
        The ladder; by default 25 doses from the lowest to the highest that was measured, and of a model that was not
        told of doses those that were measured.
    level
        Of the intervals, as of :func:`rank`.
    missing_genes
        As for :meth:`Model.predict`.

    Returns
    -------
    curves, ec50 : pandas.DataFrame
        ``gene, dose, mean, low, high``; and by gene ``ec50, low, high, change`` (the largest, signed).

    Raises
    ------
    InputError
        The model has no doses or several compounds, or a gene or dose is unknown.
    """
    import pandas as pd

    fitted = _several(models, level)
    metadata = fitted[0].metadata_
    known = {name: dose for name, dose in metadata.doses.items() if name != metadata.conditions[0]}
    if not known:
        raise InputError("the model knows no doses: fit it to cells that were read with dose_key")
    compounds = sorted({undosed(name) for name in known})
    compound = compounds[0] if compound is None and len(compounds) == 1 else compound
    if compound not in compounds:
        raise InputError(f"say which compound: {', '.join(compounds)}")
    place = [_index(gene, metadata.genes) for gene in genes]
    measured = [dose for name, dose in known.items() if undosed(name) == compound]
    if doses is None:
        told = all(model.vectors_ is not None for model in fitted)
        doses = list(np.geomspace(min(measured), max(measured), 25)) if told else sorted(measured)
    ladder = np.array([float(f"{dose:.6g}") for dose in doses])
    if len(set(ladder)) < 2 or not (np.diff(ladder) > 0).all() or ladder[0] <= 0:
        raise InputError("a curve needs two doses or more, rising, all above 0")
    names = [f"{compound}@{dose:.6g}" for dose in ladder]
    draws = _Draws(fitted, controls, names, None, missing_genes)
    change = np.stack([draws.shift(name)[:, place] for name in names], axis=1)  # (draws, doses, genes)
    draws.warn()
    means = draws.before[:, None, place] + change
    low, mean, high = np.quantile(means, [(1 - level) / 2, 0.5, (1 + level) / 2], axis=0)
    curves = pd.concat(
        pd.DataFrame({"gene": gene, "dose": ladder, "mean": mean[:, g], "low": low[:, g], "high": high[:, g]})
        for g, gene in enumerate(genes)
    )
    rows = []
    for g in range(len(genes)):
        halves = np.array([half_effective(one, ladder) for one in change[..., g]])
        typical = change[..., g].mean(axis=0)
        known_halves = halves[~np.isnan(halves)]
        ends = np.quantile(known_halves, [(1 - level) / 2, (1 + level) / 2]) if len(known_halves) else (np.nan, np.nan)
        rows.append((half_effective(typical, ladder), *ends, typical[np.abs(typical).argmax()]))
    ec50 = pd.DataFrame(rows, index=pd.Index(genes, name="gene"), columns=["ec50", "low", "high", "change"])
    return curves.reset_index(drop=True), ec50


def film_distances(model: Any, perturbations: Sequence[str] | None = None) -> pd.DataFrame:
    """Distances between perturbations by how they steer the decoder of a FiLM model.

    Euclidean, between gamma and beta of all layers side by side (:meth:`film`): near ones do alike whatever the cell.

    Parameters
    ----------
    model
        A fitted model of the multi-task family.
    perturbations
        Which; by default all that it was fitted to.

    Raises
    ------
    InputError
        The model has no FiLM, or a perturbation is unknown.
    """
    import pandas as pd

    if not hasattr(model, "film"):
        raise InputError(f"{model.name} has no FiLM: the multi-task networks have, such as mtae")
    names = list(perturbations or model.perturbations)
    steered = np.stack([np.concatenate([part for layer in model.film(name) for part in layer]) for name in names])
    apart = np.linalg.norm(steered[:, None].astype(np.float64) - steered, axis=-1)
    return pd.DataFrame(apart, index=names, columns=names)


def _several(models: Model | Sequence[Model], level: float) -> list[Model]:
    if not 0 < level < 1:
        raise InputError(f"level is a probability between 0 and 1, such as 0.9, not {level!r}")
    several = list(models) if isinstance(models, Sequence) else [models]
    if not several:
        raise InputError("give a fitted model, or several")
    if len({one._fitted().genes for one in several}) > 1:
        raise InputError("the models were fitted to other genes: give models of one data set")
    return several


def _index(gene: str, genes: Sequence[str]) -> int:
    from multipert.data import did_you_mean

    if gene not in genes:
        raise InputError(f"the model knows no gene {gene!r}; {did_you_mean(gene, genes)}")
    return list(genes).index(gene)


class _Draws:
    """Control cells, and what models make of them when cells are drawn anew, with replacement.

    Each draw takes one of the models, and the same cells under all perturbations.

    Attributes
    ----------
    control
        (genes,) mean of the control cells.
    before
        (draws, genes) their mean in each draw.
    """

    def __init__(
        self,
        models: Sequence[Model],
        controls: AnnData | str | Path,
        names: Sequence[str],
        features: PerturbationFeatures | None,
        missing_genes: str,
    ) -> None:
        from multipert.data.alignment import read_aligned
        from multipert.models.described import asked

        self._models = [asked(model, names, features)[0] for model in models]
        metadata = models[0].metadata_
        self._cells = read_aligned(
            controls, metadata.space, metadata.keys, missing_genes=missing_genes, controls_only=True
        )
        X = self._X = self._cells.X[:]
        n, rng = X.shape[0], np.random.default_rng(0)
        self._drawn = np.stack([np.bincount(rng.integers(n, size=n), minlength=n) for _ in range(DRAWS)]) / n
        self.control = np.asarray(X.mean(axis=0), dtype=np.float64).ravel()
        self.before: Doubles = np.asarray(self._drawn @ X)
        self._notes: dict[str, None] = {}

    def shift(self, name: str) -> Doubles:
        """The mean shift under a perturbation in each draw, (draws, genes)."""
        from multipert.models.questions import Question

        shifts = np.empty_like(self.before)
        for number, model in enumerate(self._models):
            condition = model.metadata_.conditions.index(name)
            answer = model._answer(Question(self._X, self._cells.context, self._cells.contexts, condition))
            self._notes |= dict.fromkeys(answer.notes)
            mine = np.arange(DRAWS) % len(self._models) == number
            shifts[mine] = self._drawn[mine] @ np.maximum(answer.cells, 0) - self.before[mine]
        return shifts

    def warn(self) -> None:
        """Say what models said against their answers."""
        from multipert.errors import InputWarning

        if self._notes:
            first, more = next(iter(self._notes)), len(self._notes) - 1
            warnings.warn(first + (f" (and {more} notes more)" if more else ""), InputWarning, stacklevel=3)


def half_effective(change: Doubles, doses: Doubles) -> float:
    """The dose at which a curve first reaches half of its largest change."""
    part = change / change[np.abs(change).argmax()] if np.abs(change).max() > 0 else np.zeros_like(change)
    above = int((part >= 0.5).argmax())
    if part[above] < 0.5 or above == 0:
        return float("nan")
    on = (0.5 - part[above - 1]) / (part[above] - part[above - 1])
    return float(np.exp(np.log(doses[above - 1]) + on * np.log(doses[above] / doses[above - 1])))
