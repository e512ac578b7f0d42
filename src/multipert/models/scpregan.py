"""scPreGAN: one encoder, and for control and perturbed cells a generator and a discriminator each.

The encoder finds what a cell is, whatever its condition; a side's generator writes it out as a cell of that side. A
side's discriminator tells real cells from generated ones and names their context. Every cell is generated on its own
side, on the other side, and from there back again: cycled. A control cell is predicted by the perturbed side's
generator.

In every iteration the discriminators move first, then, on other cells, the encoder and generators. All cells that
training may see take part: nothing is validated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from multipert import networks
from multipert.models.losses import mean_squared_error
from multipert.models.network_model import OneForEach
from multipert.models.parameters import Range, parameter
from multipert.models.registry import register
from multipert.networks.sides import OTHER_SIDE
from multipert.training import Examples, Optimiser, SideBySide, Stage, Update, step_decay

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from multipert.data import PerturbationData, Split
    from multipert.models.metadata import FitMetadata
    from multipert.networks import CrossGenerator
    from multipert.training import Batch, Terms

Rows = npt.NDArray[np.int64]

NEXT = {"control": "next control", "perturbed": "next perturbed"}
"""For each side, the role of the cells that encoder and generators learn from."""


@dataclass(frozen=True, kw_only=True)
class ScPreGANParameters:
    """What scPreGAN can be told."""

    hidden: tuple[int, ...] = parameter(
        (128, 64),
        "hidden widths of the encoder and discriminators; generators mirror them",
        at_least=1,
        search=((128, 64), (256, 128), (512, 256)),
    )
    latent: int = parameter(16, "width of the latent space", at_least=1, search=(8, 16, 32, 64))
    initial: Literal["xavier", "torch"] = parameter(
        "xavier", "how weights start: 'xavier' (uniform, Glorot 2010) or 'torch', torch's default, as in the original"
    )
    lr: float = parameter(
        0.002,
        "learning rate of the generators and discriminators",
        at_least=0,
        search=Range(2e-4, 1e-2, log=True),
    )
    beta1: float = parameter(0.5, "decay of Adam's first moment, of generators and discriminators", at_least=0, below=1)
    beta2: float = parameter(0.9, "decay of Adam's second moment, of the same", at_least=0, below=1)
    encoder_lr: float = parameter(0.002, "learning rate of the encoder", at_least=0, search=Range(1e-4, 1e-2, log=True))
    decay: float = parameter(0.9, "what all learning rates are multiplied by now and then", at_least=0)
    decay_every: int = parameter(10000, "iterations between two such times", at_least=1)
    reconstruction_weight: float = parameter(1.0, "weight of the reconstruction loss", at_least=0)
    adversarial_weight: float = parameter(
        0.001, "weight of the adversarial and classifier losses", at_least=0, search=Range(1e-4, 0.1, log=True)
    )
    encoding_weight: float = parameter(
        0.1, "weight of the encoding loss", at_least=0, search=Range(1e-2, 1.0, log=True)
    )
    label_slip: bool = parameter(
        False,
        "whether generated cells are to be named after the contexts of the cells the discriminators saw before them, "
        "as the original does by mistake",
    )
    batch_size: int = parameter(32, "cells of each side in a batch", at_least=1, search=(32, 64, 128))
    epochs: int = parameter(20, "epochs", at_least=1)
    iterations: int = parameter(30, "iterations in an epoch", at_least=1)


@register
class ScPreGAN(OneForEach):
    """scPreGAN: cells written out on the other side by generative adversarial networks."""

    name = "scpregan"
    title = "encoder with a generator and a discriminator for control and for perturbed cells"
    source = (
        "Wei et al., scPreGAN, a deep generative model for predicting the response of single-cell expression to "
        "perturbation, Bioinformatics 2022"
    )
    assumes = "one latent space holds what a cell is, whatever its condition"
    loss = (
        "mean squared errors of both sides + encoding weight * those of latents encoded again "
        "+ adversarial weight * (cross-entropies of passing for real - probabilities of the right context)"
    )
    Parameters: ClassVar[type] = ScPreGANParameters

    stackable = False  # torch's spectral norm follows its singular value in place

    parameters: ScPreGANParameters

    def _one_network(self, metadata: FitMetadata) -> CrossGenerator:
        p, sizes = self.parameters, (len(metadata.genes), len(metadata.contexts))
        return networks.CrossGenerator(*sizes, hidden=p.hidden, latent=p.latent, linear=networks.START[p.initial])

    def _one_training(
        self, network: CrossGenerator, data: PerturbationData, split: Split, conditions: Sequence[int]
    ) -> list[Stage]:
        p = self.parameters
        betas = (p.beta1, p.beta2)
        encoder = Optimiser([network.encoder], p.encoder_lr)
        generators, discriminators = (
            Optimiser([modules], p.lr, betas=betas) for modules in (network.generators, network.discriminators)
        )
        decay = step_decay(p.decay, p.decay_every)
        updates = [
            Update(discriminators, lambda batch: self._discriminator_loss(network, batch), decay),
            Update([encoder, generators], lambda batch: self._generator_loss(network, batch), decay),
        ]
        rows = split.visible
        sides = [
            one_side(data, rows, role, code)
            for roles in (OTHER_SIDE, NEXT.values())
            for role, code in zip(roles, (0, *conditions), strict=True)
        ]
        return [Stage("adversarial", SideBySide(sides, p.batch_size, p.iterations), p.epochs, updates)]

    def _discriminator_loss(self, network: CrossGenerator, batch: Batch) -> Terms:
        """The discriminators' loss, over a side's real cells and those generated on it from the other side."""
        import torch
        from torch.nn.utils.parametrize import cached

        loss = torch.zeros(())
        with cached():  # a discriminator's weights are normalised once for real and generated cells
            for side, other in OTHER_SIDE.items():
                with torch.no_grad():
                    crossed = network.generate(network.encoder(batch.cells[other]), side)
                loss = loss + network.judge(batch.cells[side], batch.labels[side], side, real=True)
                loss = loss + network.judge(crossed, batch.labels[other], side, real=False)
        return {"discriminators": loss}

    def _generator_loss(self, network: CrossGenerator, batch: Batch) -> Terms:
        """The loss of encoder and generators: reconstruction, adversarial and encoding, on both sides."""
        import torch

        p = self.parameters
        x = [batch.cells[NEXT[side]] for side in OTHER_SIDE]
        contexts = [batch.labels[side if p.label_slip else NEXT[side]] for side in OTHER_SIDE]
        # A layer takes all cells of a loss at once: one product of many costs less than many of few.
        z = torch.cat([network.encoder(cells) for cells in x])
        generated = {side: network.generate(z, side) for side in OTHER_SIDE}
        encoded = dict(zip(OTHER_SIDE, network.encoder(torch.cat(list(generated.values()))).chunk(2), strict=True))
        # Each error is a mean over as many cells, so that twice one over both sides' cells is the sum of theirs.
        encoding = torch.stack([2 * mean_squared_error(again, z.detach()) for again in encoded.values()]).sum()
        reconstruction = adversarial = torch.zeros(())
        for own, (side, other) in enumerate(OTHER_SIDE.items()):
            reconstruction = reconstruction + mean_squared_error(generated[side].chunk(2)[own], x[own])
            cycled = network.generate(encoded[other].chunk(2)[own], side)
            cells, named = torch.cat([generated[side], cycled]), torch.cat([*contexts, contexts[own]])
            adversarial = adversarial + 3 * network.judge(cells, named, side, real=True)
        loss = (
            p.reconstruction_weight * reconstruction + p.adversarial_weight * adversarial + p.encoding_weight * encoding
        )
        return {"loss": loss, "reconstruction": reconstruction, "adversarial": adversarial, "encoding": encoding}

    def _one_response(
        self, network: CrossGenerator, X: csr_matrix, groups: Rows, condition: int
    ) -> npt.NDArray[np.float32]:
        return self._in_batches(X, lambda x: network.generate(network.encoder(x), "perturbed"))


def one_side(data: PerturbationData, rows: Rows, role: str, condition: int) -> Examples:
    """The cells of a side, those of ``condition`` among ``rows``, in a role, each with the code of its context."""
    cells = rows[data.condition[rows] == condition]
    return Examples(data.X, {role: cells}, {role: data.context[cells].astype(np.int64)})
