"""What a fitted model knows of the world it was fitted in."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from multipert.data import HeldOut, Keys, PerturbationData, Split, did_you_mean
from multipert.data.condition_vectors import ConditionVectors
from multipert.data.features import Source
from multipert.data.scale import ExpressionScale, ExpressionSpace, Preprocessing
from multipert.errors import InputError
from multipert.models.run_folder import as_type


@dataclass(frozen=True)
class FeatureRecord:
    """By what a fitted model knows conditions, where it was fitted with features; the numbers are among its arrays.

    Attributes
    ----------
    source
        Where the features come from.
    names
        The members of perturbations that are described.
    halves
        The half doses of the basis of doses; empty without doses.
    width
        Numbers that describe a member at a dose.
    """

    source: Source
    names: tuple[str, ...]
    halves: tuple[float, ...]
    width: int


@dataclass(frozen=True)
class FitMetadata:
    """What a fitted model knows of the world it was fitted in.

    Attributes
    ----------
    genes
        Gene names, in the order of its profiles.
    conditions
        Condition names, control first: the order of the one-hot.
    labels
        For each condition, what the columns of ``obs`` hold in its cells.
    contexts
        Contexts seen in training.
    keys
        Which columns and layer the data were read from.
    rule
        What was held out: perturbed cells that training did not see.
    fingerprint
        Of the data.
    preprocessing
        How raw counts become expression as in the data; none where that is not known.
    scale
        What totals the training cells have.
    features
        By what the model knows conditions; none where by their number.
    """

    genes: tuple[str, ...]
    conditions: tuple[str, ...]
    labels: Mapping[str, Mapping[str, str | float]]
    contexts: tuple[str, ...]
    keys: Keys
    rule: HeldOut
    fingerprint: str
    preprocessing: Preprocessing | None
    scale: ExpressionScale | None
    features: FeatureRecord | None = None

    @classmethod
    def of(cls, data: PerturbationData, split: Split, vectors: ConditionVectors | None = None) -> Self:
        """The metadata of a fit to ``data``."""
        space = data.expression_space(np.concatenate([split.train, split.validation]))
        return cls(
            tuple(data.genes),
            data.conditions,
            {condition: data.labels(condition) for condition in data.conditions},
            data.contexts,
            data.keys,
            split.rule,
            data.fingerprint,
            space.preprocessing,
            space.scale,
            None if vectors is None else FeatureRecord(vectors.source, vectors.names, vectors.halves, vectors.width),
        )

    @property
    def doses(self) -> dict[str, float]:
        """The dose of each condition; empty without doses."""
        key = self.keys.dose_key
        return {} if key is None else {name: float(labels[key]) for name, labels in self.labels.items()}

    def with_conditions(self, names: Sequence[str]) -> Self:
        """The same with more conditions, that training knew nothing of."""
        new = {}
        for name in names:
            compound, _, dose = name.rpartition("@")
            labels: dict[str, str | float] = {}
            if self.keys.perturbation_key is not None:
                labels[self.keys.perturbation_key] = compound if self.keys.dose_key is not None else name
            if self.keys.dose_key is not None:
                try:
                    labels[self.keys.dose_key] = float(dose)
                except ValueError:
                    dose = "-1"
                if not 0 <= float(dose) < np.inf:
                    raise InputError(f"{name!r} has no dose, 0 or more: ask for it as NAME@DOSE, such as drug@1.5")
            new[name] = labels
        return replace(self, conditions=(*self.conditions, *new), labels={**self.labels, **new})

    @property
    def space(self) -> ExpressionSpace:
        """The genes and the scale of the model's expression."""
        return ExpressionSpace(self.genes, self.preprocessing, self.scale)

    def check_condition(self, name: str, known: tuple[str, ...]) -> None:
        """Refuse a name that is not among ``known``, and say which are."""
        if name not in known:
            raise InputError(f"the model knows no perturbation {name!r}; {did_you_mean(name, known)}")

    @classmethod
    def from_json(cls, text: Mapping[str, Any]) -> Self:
        """Read what ``dataclasses.asdict`` wrote.

        Raises
        ------
        InputError
            If it is damaged.
        """
        metadata = as_type(cls, text, "metadata")
        for name, at_least in (("genes", 1), ("conditions", 2), ("contexts", 1)):
            names = getattr(metadata, name)
            if len(names) < at_least or len(set(names)) < len(names):
                raise InputError(f"metadata: {name} are {len(names)}, {len(set(names))} of them different")
        columns = [set(metadata.labels.get(condition, ())) for condition in metadata.conditions]
        if len(metadata.labels) != len(columns) or not columns[0] or any(one != columns[0] for one in columns):
            raise InputError("metadata: labels are not those of the conditions")
        rule = metadata.rule
        if rule.context not in (None, *metadata.contexts) or not {*rule.conditions, *rule.hidden} <= set(
            metadata.conditions
        ):
            raise InputError("metadata: the rule holds out what is not there")
        scale, preprocessing = metadata.scale, metadata.preprocessing
        if scale is not None and (
            len(scale.gene_means) != len(metadata.genes)
            or not (0 <= scale.low <= scale.high and 0 <= scale.spread < 100 and min(scale.gene_means) >= 0)
        ):
            raise InputError("metadata: scale is not one of these genes")
        if preprocessing is not None and preprocessing.target_sum <= 0:
            raise InputError("metadata: preprocessing scales to nothing")
        return metadata


def split_digest(split: Split) -> str:
    """Sixteen hexadecimal digits that stand for which cells train and which validate."""
    digest = hashlib.blake2b(digest_size=8)
    for rows in (split.train, split.validation):
        digest.update(f"{len(rows)}:".encode() + rows.astype("<i8").tobytes())
    return digest.hexdigest()
