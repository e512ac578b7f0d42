"""Models that are told what perturbations are: at the fit, in a run folder, and asked for others than they saw."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

from multipert.data import PerturbationFeatures, read_features
from multipert.data.condition_vectors import ConditionVectors
from multipert.errors import InputError
from multipert.models.run_folder import Arrays, Layout, check_arrays

if TYPE_CHECKING:
    from multipert.data import PerturbationData, Split
    from multipert.models.base import Model
    from multipert.models.metadata import FeatureRecord

PREFIX = "features."
"""Begins the names of the arrays of a run folder that hold what perturbations are."""


def condition_vectors(
    model: Model, features: PerturbationFeatures | str | None, data: PerturbationData, split: Split
) -> ConditionVectors | None:
    """How a model is to know the conditions of ``data``; none where by their number.

    Raises
    ------
    InputError
        It takes no features, a source cannot be read, or a perturbation has none.
    """
    read = read_features(features, data, split) if isinstance(features, str) else features
    if read is None:
        return None
    if not model.takes_features:
        raise InputError(f"{model.name} tells perturbations apart by number and takes no features: leave them out")
    return ConditionVectors.fit(read, data, split)


def asked(
    model: Model, perturbation: str | Sequence[str], features: PerturbationFeatures | None = None
) -> tuple[Model, list[str]]:
    """The perturbations asked for, by name, and the model that knows them all.

    Raises
    ------
    InputError
        A name is unknown or given twice, or the model cannot predict what training never saw.
    """
    known = model.perturbations
    if perturbation == "all" and "all" not in known:
        return model, list(known)
    names = [perturbation] if isinstance(perturbation, str) else list(perturbation)
    if not names or len(set(names)) < len(names):
        raise InputError(f"name one perturbation or several, each once, not {names}")
    metadata, vectors = model.metadata_, model.vectors_
    if features is not None:
        if vectors is None:
            raise InputError(
                f"this {model.name} was fitted without features, so that it cannot be told of others by them"
            )
        vectors = vectors.with_others(features)
    unseen = [name for name in names if name in metadata.rule.unseen_conditions]
    if unseen and vectors is None and not model.predicts_unseen:
        raise InputError(
            f"training saw no cell of {unseen[0]!r} (it was held out), and {model.name} knows perturbations by their "
            "cells alone: ask for one that it saw" + ("" if not model.takes_features else ", or fit it with features")
        )
    new = [name for name in names if name not in known]
    if new and (vectors is None or new[0] == metadata.conditions[0]):
        metadata.check_condition(new[0], known)
    if vectors is not None and new:
        extended = metadata.with_conditions(new)
        missing = vectors.missing(new, extended.doses)
        if missing:
            metadata.check_condition(missing[0], (*known, *vectors.names))
        model = copy.copy(model)
        model.metadata_, model.vectors_ = extended, vectors
        model._describe(new)
    if vectors is not None and (new or unseen):
        nothing = [name for name in (*unseen, *new) if vectors.says_nothing_of(name, model.metadata_.doses)]
        if nothing:
            raise InputError(
                f"training saw nothing of {nothing[0]!r}, and its features ({vectors.source}) say nothing either: fit "
                "with features that describe it, such as genes, smiles or table"
            )
    return model, names


def vector_digest(vectors: ConditionVectors | None) -> dict[str, str]:
    """What vectors add to that which determines a fit: nothing where there are none."""
    return {} if vectors is None else {"features": vectors.digest}


def vector_arrays(vectors: ConditionVectors | None) -> Arrays:
    """What a run folder keeps of a model's vectors."""
    if vectors is None:
        return {}
    kept = {"members": vectors.members, "centre": vectors.centre, "projection": vectors.projection}
    return {PREFIX + name: array for name, array in kept.items()}


def take_vectors(arrays: Arrays, record: FeatureRecord | None) -> tuple[ConditionVectors | None, Arrays]:
    """The vectors in what a run folder holds, and the other arrays.

    Raises
    ------
    InputError
        They are damaged.
    """
    if record is None:
        return None, arrays
    own = {name: array for name, array in arrays.items() if name.startswith(PREFIX)}
    per_member = record.width // max(1, len(record.halves))
    by_number = record.source in ("members", "dose")
    directions = 0 if by_number else per_member - 1
    layout: Layout = {
        f"{PREFIX}members": ((len(record.names), per_member), "f"),
        f"{PREFIX}centre": ((0 if by_number else None,), "f"),
        f"{PREFIX}projection": ((0 if by_number else None, directions), "f"),
    }
    check_arrays(own, layout)
    members, centre, projection = (own[PREFIX + name] for name in ("members", "centre", "projection"))
    if len(centre) != len(projection):
        raise InputError("the weights 'features.centre' and 'features.projection' do not go together")
    vectors = ConditionVectors(record.source, record.names, record.halves, members, centre, projection)
    return vectors, {name: array for name, array in arrays.items() if name not in own}
