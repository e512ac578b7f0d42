"""A model in one file: cells multiplied, gene by gene, by the fold change that training contexts saw."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from multipert.data import PerturbationData, Split
from multipert.models import Arrays, Model, parameter, register
from multipert.training import History, TrainerConfig


@dataclass(frozen=True, kw_only=True)
class FoldChangeParameters:
    """What fold-change can be told."""

    pseudocount: float = parameter(0.05, "added to both means of a gene before they are divided", at_least=0.001)


@register
class FoldChange(Model):
    """Multiplies each gene by its fold change, over all training contexts together: what is silent stays silent."""

    name = "fold-change"
    title = "cells multiplied, gene by gene, by the fold change seen in training"
    source = "an example of a model from outside"
    family = "example"
    assumes = "a perturbation multiplies a gene by the same factor in every context"
    Parameters = FoldChangeParameters

    def _learn(
        self, data: PerturbationData, split: Split, config: TrainerConfig, identity: Mapping[str, Any]
    ) -> History:
        """Learn the mean profile of each condition, (conditions, genes), from the cells that training may see."""
        rows = np.concatenate([split.train, split.validation])
        of_condition = [rows[data.condition[rows] == code] for code in range(len(data.conditions))]
        self.means_ = np.stack([np.asarray(data.X[cells].mean(axis=0)).ravel() for cells in of_condition])
        return History()

    def _predict(self, X: csr_matrix, groups: npt.NDArray[np.int64], condition: int) -> npt.NDArray[np.float32]:
        """Perturbed profiles (cells, genes) of control cells ``X``."""
        control, perturbed = self.means_[[0, condition]] + self.parameters.pseudocount
        return np.asarray(X.toarray() * perturbed / control, dtype=np.float32)

    def _arrays(self) -> Arrays:
        """What a saved run must hold."""
        return {"means": self.means_}

    def _restore(self, arrays: Arrays) -> None:
        self.means_ = arrays["means"]
