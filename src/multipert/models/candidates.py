"""Questions that are asked of a fitted model: which perturbation to take, at what dose, and which are alike to it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from multipert.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from multipert.models.base import Model

Doubles = npt.NDArray[np.float64]

DRAWS = 200
"""Times that control cells are drawn anew, with replacement, for an interval."""


def rank(
    models: Model | Sequence[Model],
    controls: AnnData | str | Path,
    target: AnnData,
    perturbations: Sequence[str] | None = None,
    *,
    away: bool = False,
    level: float = 0.9,
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
        Cells in the state, with the genes of the model: another cell type, healthy cells, cells under a drug.
    perturbations
        The candidates; by default all that the first model knows of (:attr:`Model.perturbations`).
    away
        Whether those that move cells farthest the other way come first.
    level
        Of the interval, which holds what control cells and seeds leave open; not that a model may be wrong.

    Returns
    -------
    pandas.DataFrame
        A row for each perturbation, the best first: ``score``, its interval ``low`` and ``high``, and ``along``.

    Raises
    ------
    InputError
        There is no model, a perturbation is unknown, or the cells cannot be read or are in that state already.
    """
    import pandas as pd

    fitted = _several(models)
    names = list(perturbations or fitted[0].perturbations)
    genes = list(fitted[0].metadata_.genes)
    missing = [gene for gene in genes if gene not in target.var_names]
    if missing:
        raise InputError(f"the cells of the state lack {len(missing)} genes of the model, such as {missing[0]!r}")
    state = np.asarray(target[:, genes].X.mean(axis=0), dtype=np.float64).ravel()
    control, _, shifts = _shifts(fitted, controls, names)
    way = state - control
    length = float(way @ way)
    if np.allclose(way, 0, atol=1e-6):
        raise InputError("the control cells are in that state already: give cells of another")
    along = shifts @ way / length  # (draws, perturbations)
    drawn = -along if away else 1 - ((shifts - way) ** 2).sum(axis=-1) / length
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    columns = {"score": drawn.mean(axis=0), "low": low, "high": high, "along": along.mean(axis=0)}
    return pd.DataFrame(columns, index=pd.Index(names, name="perturbation")).sort_values("score", ascending=False)


def dose_response(
    models: Model | Sequence[Model],
    controls: AnnData | str | Path,
    genes: Sequence[str],
    *,
    compound: str | None = None,
    doses: Sequence[float] | None = None,
    level: float = 0.9,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predicted mean expression of genes along a ladder of doses, and the dose of half the largest change.

    EC50 is read off the curve: the smallest dose at which the change from dose 0 reaches half of its largest, on the
    line between neighbouring doses in the logarithm of dose; NaN where the curve is past half at the lowest dose.

    Parameters
    ----------
    models
        A fitted model with doses, told of them (``features="dose"``), or several of other seeds.
    controls
        The cells at dose 0.
    genes
        Whose curves.
    compound
        Which compound; the only one by default.
    doses
        The ladder; by default 25 doses from the lowest to the highest that was measured.
    level
        Of the intervals, as of :func:`rank`.

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

    fitted = _several(models)
    metadata = fitted[0].metadata_
    known = {name: dose for name, dose in metadata.doses.items() if name != metadata.conditions[0]}
    if not known:
        raise InputError("the model knows no doses: fit it to cells that were read with dose_key")
    compounds = sorted({name.rpartition("@")[0] for name in known})
    compound = compounds[0] if compound is None and len(compounds) == 1 else compound
    if compound not in compounds:
        raise InputError(f"say which compound: {', '.join(compounds)}")
    place = [_index(gene, metadata.genes) for gene in genes]
    measured = [dose for name, dose in known.items() if name.rpartition("@")[0] == compound]
    ladder = np.geomspace(min(measured), max(measured), 25) if doses is None else np.asarray(doses, dtype=np.float64)
    ladder = np.array([float(f"{dose:.6g}") for dose in ladder])
    _, before, shifts = _shifts(fitted, controls, [f"{compound}@{dose:.6g}" for dose in ladder])
    change = shifts[..., place]
    means = before[:, None, place] + change
    low, mean, high = np.quantile(means, [(1 - level) / 2, 0.5, (1 + level) / 2], axis=0)
    curves = pd.concat(
        pd.DataFrame({"gene": gene, "dose": ladder, "mean": mean[:, g], "low": low[:, g], "high": high[:, g]})
        for g, gene in enumerate(genes)
    )
    rows = []
    for g in range(len(genes)):
        halves = np.array([_half(one, ladder) for one in change[..., g]])
        typical = change[..., g].mean(axis=0)
        known_halves = halves[~np.isnan(halves)]
        ends = np.quantile(known_halves, [(1 - level) / 2, (1 + level) / 2]) if len(known_halves) else (np.nan, np.nan)
        rows.append((_half(typical, ladder), *ends, typical[np.abs(typical).argmax()]))
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


def _several(models: Model | Sequence[Model]) -> list[Model]:
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


def _shifts(
    models: Sequence[Model], controls: AnnData | str | Path, names: Sequence[str]
) -> tuple[Doubles, Doubles, Doubles]:
    """Mean control profile, (genes,), and what it and mean shifts are when cells are drawn anew.

    Each draw takes one of the models and control cells with replacement, the same under all perturbations: (draws,
    genes) and (draws, perturbations, genes).
    """
    from multipert.data.alignment import read_aligned

    metadata = models[0].metadata_
    X = read_aligned(controls, metadata.space, metadata.keys, missing_genes="error", controls_only=True).X
    n, rng = X.shape[0], np.random.default_rng(0)
    drawn = np.stack([np.bincount(rng.integers(n, size=n), minlength=n) for _ in range(DRAWS)]) / n
    before = np.asarray(drawn @ X)
    shifts = np.empty((DRAWS, len(names), X.shape[1]))
    for number, model in enumerate(models):
        mine = np.arange(DRAWS) % len(models) == number
        for place, name in enumerate(names):
            shifts[mine, place] = drawn[mine] @ model.predict(controls, name).X - before[mine]
    return np.asarray(X.mean(axis=0), dtype=np.float64).ravel(), before, shifts


def _half(change: Doubles, doses: Doubles) -> float:
    """The dose at which a curve first reaches half of its largest change."""
    part = change / change[np.abs(change).argmax()] if np.abs(change).max() > 0 else np.zeros_like(change)
    above = int((part >= 0.5).argmax())
    if part[above] < 0.5 or above == 0:
        return float("nan")
    on = (0.5 - part[above - 1]) / (part[above] - part[above - 1])
    return float(np.exp(np.log(doses[above - 1]) + on * np.log(doses[above] / doses[above - 1])))
