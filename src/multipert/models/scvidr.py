"""scVIDR: latent arithmetic in which each context moves its own way, and doses share one direction (Kana 2023).

The autoencoder is scGen's. Each training context has a delta of its own, from the centroid of its control cells to that
of its perturbed cells; linear regression from control centroid to delta says how a context not seen perturbed moves.
Where a compound was given at several doses, one autoencoder learns them all, the regression is made at the highest
dose, and a lower dose goes part of the way, by the logarithm of the dose.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from multipert import networks
from multipert.data.suggestions import did_you_mean
from multipert.errors import InputError
from multipert.models.network_model import PREDICTED_AT_ONCE
from multipert.models.parameters import parameter
from multipert.models.registry import register
from multipert.models.scgen import LatentArithmetic, LatentArithmeticParameters, visible

if TYPE_CHECKING:
    import pandas as pd
    from scipy.sparse import csr_matrix

    from multipert.data import PerturbationData, Split
    from multipert.models.metadata import FitMetadata
    from multipert.networks import ContextAutoencoder, VariationalAutoencoder
    from multipert.training import Stage

Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ScVIDRParameters(LatentArithmeticParameters):
    """What scVIDR can be told beside."""

    share_hidden: bool = parameter(
        False,
        "whether hidden layers after the first are one layer passed several times, in the encoder and in the decoder, "
        "as in the original; this makes a difference from three layers on",
    )
    regression: bool = parameter(
        True,
        "whether each context moves by a delta of its own, regressed on its control centroid; without, all contexts "
        "move by one common delta, as in scgen",
    )


@register
class ScVIDR(LatentArithmetic):
    """scVIDR for single doses (``vidrSingle``): a delta for each context, by regression on its control centroid.

    Given control cells of several contexts, each context is moved by its own.
    """

    name = "scvidr"
    title = "variational autoencoder; each context moved by a latent vector regressed on its control centroid"
    assumes = "how a context moves is linear in where its control cells lie in latent space"
    source = (
        "Kana et al., Generative modeling of single-cell gene expression for dose-dependent chemical perturbations, "
        "Patterns 2023"
    )
    Parameters = ScVIDRParameters

    def _one_network(self, metadata: FitMetadata) -> ContextAutoencoder:
        sizes = len(metadata.genes), len(metadata.contexts)
        return networks.ContextAutoencoder(*sizes, **self._shape, share_hidden=self.parameters.share_hidden)

    def _conclude(self, network: Any, data: PerturbationData, split: Split) -> None:
        for one, conditions in zip(network, self._groups(self.metadata_).values(), strict=True):
            self._survey(one, data, split, conditions)

    def _survey(
        self, network: ContextAutoencoder, data: PerturbationData, split: Split, conditions: Sequence[int]
    ) -> None:
        """Note the range of the cells it learnt, and each context's centroid and delta at the highest dose."""
        import torch

        rows, highest_dose = visible(data, split, [0, *conditions]), conditions[-1]
        context, condition = data.context[rows], data.condition[rows]
        groups = [(here, code) for here in range(len(data.contexts)) for code in (0, highest_dose)]
        members = np.stack([(context == here) & (condition == code) for here, code in groups])
        sums = np.zeros((len(groups), self.parameters.latent))
        lowest, highest = np.inf, -np.inf
        for place, z in self._batches(data.X, network.encode, rows):
            sums += members[:, place].astype(np.float64) @ z
            lowest, highest = np.minimum(lowest, z.min(axis=0)), np.maximum(highest, z.max(axis=0))
        with np.errstate(invalid="ignore"):  # the mean of no cells is NaN
            means = torch.from_numpy(sums / members.sum(axis=1)[:, None]).reshape(-1, 2, self.parameters.latent)
        network.lowest.copy_(torch.as_tensor(lowest))
        network.highest.copy_(torch.as_tensor(highest))
        network.centroids.copy_(means[:, 0])
        network.deltas.copy_(means[:, 1] - means[:, 0])
        if not self.parameters.regression:
            network.common.copy_(torch.from_numpy(self._common_delta(network, data, split, highest_dose)))

    def _delta(self, network: ContextAutoencoder, centroid: Doubles) -> Doubles:
        """Where cells around a control centroid (latent,) move, (latent,)."""
        if not self.parameters.regression:
            return network.common.double().numpy()
        return regressed_delta(centroid, network.centroids.numpy(), network.deltas.numpy())

    def _one_response(self, network: ContextAutoencoder, X: csr_matrix, groups: Rows, condition: int) -> Floats:
        predicted = np.empty(X.shape, dtype=np.float32)
        for group in np.unique(groups):
            cells = np.flatnonzero(groups == group)
            centroid = self._in_batches(X[cells], network.encode).mean(axis=0, dtype=np.float64)
            predicted[cells] = self._moved(network, X[cells], self._share(condition) * self._delta(network, centroid))
        return predicted

    def _share(self, condition: int) -> float:
        """How much of its network's delta a condition moves by."""
        return 1.0

    def gene_scores(self, perturbation: str, *, context: str | None = None, samples: int = 10_000) -> pd.Series[float]:
        """Which genes make up the response, by a linear stand-in of the decoder.

        Latent vectors are drawn uniformly inside each dimension's observed range and decoded. Ridge regression (penalty
        1) from latent vector to expression, a sample weighing 1 / its cosine distance to delta, gives coefficients
        (genes, latent); those of each latent dimension are divided by their norm over genes, and a gene's score is the
        inner product of its own with delta.

        Parameters
        ----------
        perturbation
            One the model was fitted on.
        context
            The training context whose delta is explained; by default the held-out one's, or the mean of all where none
            was held out.
        samples
            How many latent vectors are drawn; the original takes 100,000. The same seed draws the same.

        Returns
        -------
        Series
            Score by gene, the largest in absolute value first. Positive: the perturbation raises the gene. Scores rank
            genes; they have no unit.

        Raises
        ------
        InputError
            If the model is not fitted, the perturbation or the context is unknown, or training saw too little of
            either to know delta.

        References
        ----------
        Kana et al., Patterns 4(8), 2023; the norms and the penalty are those of its published code.
        """
        metadata = self._fitted()
        metadata.check_condition(perturbation, metadata.conditions[1:])
        context = metadata.rule.context if context is None else context
        if context is not None and context not in metadata.contexts:
            raise InputError(f"the model knows no context {context!r}; {did_you_mean(context, metadata.contexts)}")
        code = metadata.conditions.index(perturbation)
        network = self._serving(code)
        centroids = network.centroids.double().numpy()
        centroid = np.nanmean(centroids, axis=0) if context is None else centroids[metadata.contexts.index(context)]
        delta = self._share(code) * self._delta(network, centroid)
        if np.isnan(delta).any():
            raise InputError(
                f"training saw too few control cells or cells of {perturbation!r} to tell how "
                f"{'cells' if context is None else repr(context)} would move: choose another"
            )
        drawn = np.random.default_rng(self.seed).uniform(
            network.lowest.numpy(), network.highest.numpy(), (samples, len(delta))
        )
        coefficients = weighted_ridge(drawn, decoded(network, drawn), 1 / cosine_distances(drawn, delta))
        norm = np.linalg.norm(coefficients, axis=0)
        scores = np.divide(coefficients, norm, out=np.zeros_like(coefficients), where=norm > 0) @ delta
        import pandas as pd

        return pd.Series(scores, index=pd.Index(metadata.genes), name=perturbation).sort_values(
            key=np.abs, ascending=False, kind="stable"
        )


@register
class ScVIDRDose(ScVIDR):
    """scVIDR for many doses (``vidrMult``): one model of a compound, deltas at its highest dose, doses on a line.

    Dose d moves cells by ``delta log1p(d) / log1p(highest dose)``. Data without doses are the special case of one dose
    for each perturbation, its highest: the same as ``scvidr``.
    """

    name = "scvidr-dose"
    title = "scvidr with one model for all doses of a compound, moved by the logarithm of the dose"
    serves = "all doses of one compound; a network for each"
    assumes = "as scvidr, and a lower dose goes part of the same way, by log(1 + dose)"

    def _groups(self, metadata: FitMetadata) -> dict[str, list[int]]:
        """The conditions of each compound, the highest dose last."""
        return {compound: sorted(doses, key=doses.__getitem__) for compound, doses in compounds(metadata).items()}

    def _stages(self, network: Any, data: PerturbationData, split: Split) -> list[Stage]:
        if self.metadata_.keys.dose_key is None:
            _log.warning("scvidr-dose: the data name no doses (no dose key), so this fit is the same as scvidr's")
        return super()._stages(network, data, split)

    def _share(self, condition: int) -> float:
        doses = next(doses for doses in compounds(self.metadata_).values() if condition in doses)
        return float(np.log1p(doses[condition]) / np.log1p(max(doses.values())))


def compounds(metadata: FitMetadata) -> dict[str, dict[int, float]]:
    """The dose of each condition, by code, of each compound; 1 where the data have no doses."""
    key = metadata.keys.dose_key
    found: dict[str, dict[int, float]] = {}
    for code, condition in enumerate(metadata.conditions[1:], start=1):
        labels: Mapping[str, Any] = metadata.labels[condition]
        compound, dose = (condition, 1.0) if key is None else (condition.rpartition("@")[0], labels[key])
        found.setdefault(compound, {})[code] = dose
    return found


def regressed_delta(centroid: npt.ArrayLike, centroids: npt.ArrayLike, deltas: npt.ArrayLike) -> Doubles:
    """Delta at a control centroid, by ordinary linear regression over contexts.

    Contexts are fewer than latent dimensions, so that many lines fit exactly: the one of least norm is taken. A single
    context gives its own delta.

    Parameters
    ----------
    centroid
        (latent,) where delta is wanted.
    centroids, deltas
        (contexts, latent) the control centroid of each context, and its delta; contexts with NaN are left out.

    Returns
    -------
    ndarray
        (latent,), NaN where there is no context.
    """
    x, X, Y = (np.asarray(one, dtype=np.float64) for one in (centroid, centroids, deltas))
    known = ~np.isnan(Y).any(axis=1)
    if not known.any():
        return np.full_like(x, np.nan)
    X, Y = X[known], Y[known]
    slope = np.linalg.lstsq(X - X.mean(axis=0), Y - Y.mean(axis=0), rcond=None)[0]
    predicted: Doubles = Y.mean(axis=0) + (x - X.mean(axis=0)) @ slope
    return predicted


def decoded(network: VariationalAutoencoder, z: Doubles) -> Iterator[Doubles]:
    """Profiles (samples, genes) of latent vectors (samples, latent), some at a time."""
    import torch

    for start in range(0, len(z), PREDICTED_AT_ONCE):
        some = torch.from_numpy(z[start : start + PREDICTED_AT_ONCE].astype(np.float32))
        with torch.no_grad():
            profiles = network.decode(some)
        yield profiles.double().numpy()


def weighted_ridge(inputs: Doubles, outputs: Iterable[Doubles], weights: Doubles, penalty: float = 1.0) -> Doubles:
    """Coefficients of weighted ridge regression with a free intercept.

    Parameters
    ----------
    inputs
        (samples, inputs)
    outputs
        (some samples, outputs) in order, part by part: they are never held all at once.
    weights
        (samples,)
    penalty
        Of the squared coefficients.

    Returns
    -------
    ndarray
        (outputs, inputs)
    """
    design = np.column_stack([np.ones(len(inputs)), inputs])
    weighted = design * weights[:, None]
    left = weighted.T @ design + penalty * np.diag([0.0] + [1.0] * inputs.shape[1])
    right: npt.NDArray[np.floating[Any]] = np.zeros(1)
    start = 0
    for part in outputs:
        right = right + weighted[start : start + len(part)].T @ part
        start += len(part)
    coefficients: Doubles = np.linalg.solve(left, right)[1:].T
    return coefficients


def cosine_distances(vectors: Doubles, direction: Doubles) -> Doubles:
    """One minus the cosine between each vector (n, latent) and a direction (latent,), (n,), at least 1e-6."""
    norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(direction)
    cosine = np.divide(vectors @ direction, norms, out=np.zeros(len(vectors)), where=norms > 0)
    distances: Doubles = np.maximum(1 - cosine, 1e-6)
    return distances
