"""What a fitted model says of a perturbation: the genes that move, and the units that move them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from multipert.data.suggestions import did_you_mean
from multipert.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from multipert.models.base import Model
    from multipert.models.film_model import FilmModel

Doubles = npt.NDArray[np.float64]

LEVEL = 0.9
"""Probability with which an interval shall hold a gene's mean."""

NOTHING = 1e-6
"""Largest effect that is rounding."""

GENES_OF_UNIT = 5
"""Genes that are named beside a unit."""


class MeanResponse(NamedTuple):
    """What a model expects of the mean of each gene in one context.

    Attributes
    ----------
    control, predicted
        (genes,) mean log-normalised expression without and with the perturbation.
    half_width
        (genes,) half the width of the interval that holds the predicted mean with probability :data:`LEVEL`, from
        models that can tell.
    """

    control: Doubles
    predicted: Doubles
    half_width: Doubles | None = None


@runtime_checkable
class KeepsMeans(Protocol):
    """A model that keeps the means of the control cells it learnt from, and so needs none to say what it expects."""

    def known_response(self, condition: int, context: int) -> MeanResponse:
        """What it expects of a context of training, both by their codes; NaN where that had no control cells."""


@dataclass(frozen=True, eq=False)
class Explanation:
    """What a fitted model says of a perturbation.

    Attributes
    ----------
    perturbation
        Which.
    of
        What ``genes`` describes, in words: the cells that were given, or a context.
    genes
        A row a gene, the strongest first; see :func:`explain`. None where the model needs control cells to say.
    units
        A row a unit of the decoder's hidden layers, the strongest first; of the multi-task family alone.
    """

    perturbation: str
    of: str
    genes: pd.DataFrame | None
    units: pd.DataFrame | None


def explain(
    model: Model,
    perturbation: str,
    controls: AnnData | str | Path | None = None,
    *,
    context: str | None = None,
    missing_genes: str = "error",
) -> Explanation:
    """Say which genes a fitted model moves under a perturbation, and by what.

    Parameters
    ----------
    model
        A fitted model.
    perturbation
        One of its perturbations, ``name@dose`` where there are doses.
    controls
        Control cells to explain the response of, as :meth:`Model.predict` takes them. ``mtcell`` and the simple
        baselines keep the means of the control cells they learnt from, and ``scvidr`` scores genes from its decoder:
        these need none.
    context
        In place of ``controls``: a context whose control cells training saw. By default the held-out one; where none
        was held out, all of them.
    missing_genes
        As for :meth:`Model.predict`.

    Returns
    -------
    Explanation
        ``genes``, indexed by gene, in log-normalised expression:

        - ``control`` and ``predicted``, the mean of a gene in each context's control cells and of what is predicted
          from them, contexts counting equally, and ``effect``, their difference. Of the multi-task family ``control``
          is the same cells decoded under control, so that the effect is that of the condition alone;
        - ``low`` and ``high``, the interval that holds the effect with probability 0.9 (``mtcell``, of one context);
        - ``score`` (``scvidr``, without ``controls``): see :meth:`ScVIDR.gene_scores`.

        ``units``: ``layer`` and ``unit`` count from 0; ``gamma`` and ``beta`` are FiLM's coefficients under the
        perturbation less those under control; ``strength = sqrt(gamma^2 + beta^2)`` is the root mean square of what
        they add to the unit, for inputs of mean 0 and variance 1 as batch normalisation gives them; ``genes`` (of the
        last layer) are those with the largest output weights: with ``+`` a gene rises as the unit does, with ``-`` it
        falls.

    Raises
    ------
    InputError
        The perturbation or the context is unknown, the model needs control cells, both ``controls`` and ``context``
        are given, or the model moves no gene.
    """
    from multipert.models.described import asked
    from multipert.models.film_model import FilmModel
    from multipert.models.scvidr import ScVIDR

    model, (name,) = asked(model, [perturbation], None)
    metadata = model.metadata_
    if controls is not None and context is not None:
        raise InputError("control cells and a context are both given to explain: leave one out")
    if context is not None and context not in metadata.contexts:
        raise InputError(f"the model knows no context {context!r}; {did_you_mean(context, metadata.contexts)}")
    of, genes = "", None
    if controls is not None:
        of, genes = _of_cells(model, name, controls, missing_genes)
    elif isinstance(model, ScVIDR):
        of = context or metadata.rule.context or "the mean of the training contexts"
        genes = model.gene_scores(name, context=context).to_frame("score")
    elif isinstance(model, KeepsMeans):
        of, genes = _of_contexts(model, model.known_response, name, context)
    units = film_units(model, name) if isinstance(model, FilmModel) else None
    if genes is None and (units is None or context is not None):
        raise InputError(
            f"{model.name} keeps no cells, and which genes it moves depends on them: give control cells "
            "(controls=, on the command line --cells)"
        )
    return Explanation(name, of, genes, units)


def _of_cells(model: Model, name: str, controls: AnnData | str | Path, missing_genes: str) -> tuple[str, pd.DataFrame]:
    """The mean response of the given control cells."""
    from multipert.data.alignment import read_aligned
    from multipert.models.film_model import FilmModel

    metadata = model.metadata_
    cells = read_aligned(controls, metadata.space, metadata.keys, missing_genes=missing_genes, controls_only=True)
    predicted = np.maximum(model._predict(cells.X, cells.context, metadata.conditions.index(name)), 0)
    control = np.maximum(model._predict(cells.X, cells.context, 0), 0) if isinstance(model, FilmModel) else cells.X
    responses = []
    for group in np.unique(cells.context):
        here = cells.context == group
        means = (np.asarray(profiles[here].mean(axis=0, dtype=np.float64)).ravel() for profiles in (control, predicted))
        responses.append(MeanResponse(*means))
    contexts = f" of {len(responses)} contexts, which count equally" if len(responses) > 1 else ""
    return f"{len(cells.context):,} control cells{contexts}", _table(model, name, responses)


def _of_contexts(
    model: Model, expected: Callable[[int, int], MeanResponse], name: str, context: str | None
) -> tuple[str, pd.DataFrame]:
    """The mean response of contexts that training saw."""
    metadata = model.metadata_
    one = context or metadata.rule.context
    chosen = range(len(metadata.contexts)) if one is None else [metadata.contexts.index(one)]
    known = [expected(metadata.conditions.index(name), code) for code in chosen]
    responses = [response for response in known if np.isfinite(response.control).all()]
    if not responses:
        raise InputError(f"training saw no control cells of {one!r}: choose another context, or give control cells")
    of = one if one is not None else f"the mean of {len(responses)} training contexts"
    return of, _table(model, name, responses)


def _table(model: Model, name: str, responses: list[MeanResponse]) -> pd.DataFrame:
    """Effects, the strongest first."""
    import pandas as pd

    control, predicted = (
        np.mean([getattr(response, what) for response in responses], axis=0) for what in ("control", "predicted")
    )
    columns = {"control": control, "predicted": predicted, "effect": predicted - control}
    if len(responses) == 1 and responses[0].half_width is not None:
        low = np.maximum(predicted - responses[0].half_width, 0)
        columns |= {"low": low - control, "high": predicted + responses[0].half_width - control}
    if np.abs(columns["effect"]).max() < NOTHING:
        raise InputError(f"{model.name} moves no gene under {name!r}: there is nothing to explain")
    table = pd.DataFrame(columns, index=pd.Index(model.metadata_.genes, name="gene"))
    return table.sort_values("effect", key=np.abs, ascending=False, kind="stable")


def film_units(model: FilmModel, perturbation: str) -> pd.DataFrame:
    """How a perturbation steers each unit of the decoder; the columns are those of :func:`explain`."""
    import pandas as pd
    from torch import nn

    metadata = model.metadata_
    under, control = (model.film(condition) for condition in (perturbation, metadata.conditions[0]))
    layers = []
    for number, (one, other) in enumerate(zip(under, control, strict=True)):
        gamma, beta = (a.astype(np.float64) - b for a, b in zip(one, other, strict=True))
        strength = np.hypot(gamma, beta)
        layer = {"layer": number, "unit": np.arange(len(gamma)), "strength": strength, "gamma": gamma, "beta": beta}
        layers.append(pd.DataFrame(layer))
    output = next(module for module in model.network_.decoder.output if isinstance(module, nn.Linear))
    weights = output.weight.detach().numpy()
    strongest = np.argsort(-np.abs(weights), axis=0, kind="stable")[:GENES_OF_UNIT].T
    layers[-1]["genes"] = [
        " ".join(f"{'+' if weights[gene, unit] > 0 else '-'}{metadata.genes[gene]}" for gene in some)
        for unit, some in enumerate(strongest)
    ]
    units = pd.concat(layers, ignore_index=True).sort_values("strength", ascending=False, kind="stable")
    return units.fillna({"genes": ""}).reset_index(drop=True)
