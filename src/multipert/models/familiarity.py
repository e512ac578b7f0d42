"""How far control cells lie from those a model was trained on, measured by how far new contexts can be expected to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from multipert.errors import InputError
from multipert.models.run_folder import check_arrays

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from multipert.data import PerturbationData, Split
    from multipert.models.run_folder import Arrays

Doubles = npt.NDArray[np.float64]

FAR = 1.0
"""Beyond how many times the expected distance control cells are called far; of some hundred held-out contexts of real
and simulated cells two were, by less than a tenth."""

_PREFIX = "training controls."


@dataclass(frozen=True, eq=False)
class TrainingControls:
    """The control cells of the contexts that training saw perturbed.

    Attributes
    ----------
    mean, noise
        (contexts, genes) mean profile, and its sampling variance.
    """

    mean: npt.NDArray[np.float32]
    noise: npt.NDArray[np.float32]

    @classmethod
    def of(cls, data: PerturbationData, split: Split) -> Self:
        """Those of the training cells of ``data``."""
        rows = np.concatenate([split.train, split.validation])
        seen = np.intersect1d(*(data.context[rows[(data.condition[rows] == 0) == one]] for one in (True, False)))
        mean, noise = np.empty((2, len(seen), len(data.genes)), dtype=np.float32)
        for place, context in enumerate(seen):
            controls = rows[(data.condition[rows] == 0) & (data.context[rows] == context)]
            mean[place], noise[place] = mean_and_noise(data.X[data.sample(controls)])
        return cls(mean, noise)

    def notes(self, X: csr_matrix, groups: npt.NDArray[np.int64]) -> tuple[str, ...]:
        """What there is to say of control cells ``X`` (cells, genes) that are far, those of a context sharing a group.

        Returns
        -------
        tuple
            A sentence, or nothing.
        """
        far = max(self.distance(*mean_and_noise(X[np.flatnonzero(groups == group)])) for group in np.unique(groups))
        return () if far <= FAR else (f"{described(far)}: nothing shows that the model is right there",)

    def distance(self, mean: npt.ArrayLike, noise: npt.ArrayLike) -> float:
        """How far a context with this mean control profile lies (see :func:`relative_distance`)."""
        return relative_distance(mean, noise, self.mean, self.noise)

    def to_arrays(self) -> Arrays:
        """What a run folder keeps of them."""
        return {f"{_PREFIX}mean": self.mean, f"{_PREFIX}noise": self.noise}

    @classmethod
    def take(cls, arrays: Arrays, n_genes: int) -> tuple[Self, Arrays]:
        """Those in what a run folder holds, and the other arrays.

        Raises
        ------
        InputError
            They are damaged.
        """
        own = {name: array for name, array in arrays.items() if name.startswith(_PREFIX)}
        check_arrays(own, dict.fromkeys((f"{_PREFIX}mean", f"{_PREFIX}noise"), ((None, n_genes), "f")))
        mean, noise = (own[f"{_PREFIX}{name}"] for name in ("mean", "noise"))
        if mean.shape != noise.shape or (noise < 0).any():
            raise InputError(f"the weights '{_PREFIX}mean' and '{_PREFIX}noise' do not go together")
        return cls(mean, noise), {name: array for name, array in arrays.items() if name not in own}


def described(far: float) -> str:
    """Say how far control cells lie."""
    return (
        f"control cells lie {far:.1f} times as far from all contexts that training saw perturbed as a new context may "
        "be expected to"
    )


def relative_distance(
    profile: npt.ArrayLike, noise: npt.ArrayLike, known: npt.ArrayLike, known_noise: npt.ArrayLike
) -> float:
    """How far a context lies from the nearest of others, in units of how far it may be expected to.

    Distances are between mean control profiles, their sampling noise taken off. Expected is the largest distance among
    the others, ``1 + 2 / (n - 1)`` times for n of them, since few say little of how far contexts can lie apart.

    Parameters
    ----------
    profile, noise
        (genes,) mean, and its sampling variance.
    known, known_noise
        (others, genes) the same of the others.

    Returns
    -------
    float
        0 where there are not two others.
    """
    means, noises = np.asarray(known, dtype=np.float64), np.asarray(known_noise, dtype=np.float64)
    if len(means) < 2:
        return 0.0

    def squares(of: npt.ArrayLike, its_noise: npt.ArrayLike) -> Doubles:
        apart: Doubles = ((means - np.asarray(of)) ** 2 - noises - np.asarray(its_noise)).sum(axis=1)
        return np.maximum(apart, 0)

    among = max(squares(*one).max() for one in zip(means, noises, strict=True))
    expected = (1 + 2 / (len(means) - 1)) * np.sqrt(among)
    return float(np.sqrt(squares(profile, noise).min()) / expected) if expected > 0 else 0.0


def mean_and_noise(X: csr_matrix) -> tuple[Doubles, Doubles]:
    """(genes,) mean of cells ``X`` (cells, genes), and its sampling variance."""
    n = X.shape[0]
    mean = np.asarray(X.mean(axis=0, dtype=np.float64)).ravel()
    square = np.asarray(X.multiply(X).mean(axis=0, dtype=np.float64)).ravel()
    return mean, np.maximum(square - mean**2, 0) / max(n - 1, 1)
