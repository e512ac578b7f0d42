"""scButterfly: control and perturbed cells as two modalities, translated into each other through a shared space.

Control cells and their optimal-transport partners are the pairs. Each side has an encoder, a decoder and a
discriminator of its latents; the translator lies between the sides. Three stages:

1. the control side's variational autoencoder alone;
2. the perturbed side's;
3. jointly: every cell is decoded on both sides through the translator, and the discriminators tell a side's native
   latents from those translated to it.

A side's encoder is deterministic. What makes its autoencoder variational in the first two stages is a bottleneck of its
own, built as the translator is but for that side alone, and the divergence is that of the bottleneck's space. The
bottlenecks then stay behind: the third stage goes on with the encoders and decoders (and their optimisers' state) and
starts with a fresh translator. Early stopping watches the reconstruction error, which neither the rising divergence nor
the adversary disturbs. In this, in the random labels, in the second draw of dropout and noise that the adversarial term
makes and in the latents that are drawn in the third stage's validation, we follow the authors' code where the paper is
silent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from multipert import networks
from multipert.errors import InputError
from multipert.models.losses import mean_squared_error
from multipert.models.network_model import OneForEach
from multipert.models.pairing import pair
from multipert.models.parameters import Range, parameter
from multipert.models.registry import register
from multipert.training import Examples, Optimiser, Shuffled, Stage, Update, warmup

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix
    from torch import Tensor, nn

    from multipert.data import PerturbationData, Split
    from multipert.models.metadata import FitMetadata
    from multipert.networks import Butterfly
    from multipert.training import Batch, Terms

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class ScButterflyParameters:
    """What scButterfly can be told."""

    control_hidden: tuple[int, ...] = parameter(
        (256,),
        "hidden widths of the control encoder; its decoder mirrors them",
        at_least=1,
        search=((128,), (256,), (512, 256)),
    )
    perturbed_hidden: tuple[int, ...] = parameter((128,), "the same of the perturbed side", at_least=1)
    latent: int = parameter(128, "width of each side's latent space", at_least=1, search=(32, 64, 128, 256))
    shared: int = parameter(128, "width of the translator's shared space", at_least=1, search=(32, 64, 128, 256))
    mask: float = parameter(0.5, "input dropout rate", at_least=0, below=1, search=Range(0.0, 0.7))
    dropout: float = parameter(0.1, "dropout rate between layers", at_least=0, below=1, search=Range(0.0, 0.5))
    kl_weight: float = parameter(
        20.0,
        "weight of each side's divergence, times the number of genes",
        at_least=0,
        search=Range(0.2, 200.0, log=True),
    )
    kl_warmup: int = parameter(10, "epochs over which that weight rises from 0, in every stage", at_least=0)
    lr: float = parameter(0.02, "learning rate (Adam)", at_least=0, search=Range(5e-4, 5e-2, log=True))
    discriminator_lr: float = parameter(0.005, "learning rate of the discriminators (gradient descent)", at_least=0)
    against_below: float = parameter(1.35, "loss of the discriminators below which the others work against them")
    zero_below: float = parameter(0.0001, "predicted values below this become 0", at_least=0)
    batch_size: int = parameter(64, "pairs in a batch", at_least=2, search=(32, 64, 128))
    drop_last: bool = parameter(True, "whether the short last batch of an epoch is left out; in the original it is not")
    pretrain_epochs: int = parameter(20, "epochs of the first and of the second stage, at most", at_least=1)
    epochs: int = parameter(40, "epochs of the third stage, at most", at_least=1)
    patience: int = parameter(20, "epochs without a lower validation error after which a stage ends", at_least=1)
    keep: Literal["best", "last", "best-if-stopped"] = parameter(
        "best", "weights a stage ends with: 'best', 'last', or as in the original 'best-if-stopped'"
    )


@register
class ScButterfly(OneForEach):
    """scButterfly: control cells translated into perturbed ones through a shared latent space."""

    name = "scbutterfly"
    title = "control and perturbed autoencoders with a translator between them, on optimal-transport pairs"
    source = (
        "Cao et al., scButterfly: a versatile single-cell cross-modality translation method via dual-aligned "
        "variational autoencoders, Nature Communications 2024"
    )
    assumes = "optimal transport finds, within a context, what each control cell would have become"
    loss = (
        "mean squared errors of own and translated cells on both sides + 2 * KL weight / genes * mean KLs "
        "- cross-entropies of the discriminators, while these are low"
    )
    Parameters: ClassVar[type] = ScButterflyParameters

    stackable = False  # the weight of its divergence depends on the epoch, which is each fit's own

    parameters: ScButterflyParameters

    def in_progress(self, network: nn.Module, data: PerturbationData, split: Split) -> None:
        """None: what translates between the sides is trained last."""
        return

    def _one_network(self, metadata: FitMetadata) -> Butterfly:
        p = self.parameters
        hidden = {"control": p.control_hidden, "perturbed": p.perturbed_hidden}
        return networks.Butterfly(
            len(metadata.genes), hidden, latent=p.latent, shared=p.shared, mask=p.mask, dropout=p.dropout
        )

    def _one_training(
        self, network: Butterfly, data: PerturbationData, split: Split, conditions: Sequence[int]
    ) -> list[Stage]:
        import torch

        p, (condition,) = self.parameters, conditions
        found = pairs(data, split.visible, condition, self.seed)
        trains = np.isin(found.cells["control"], split.train)
        training, validation = found.at(np.flatnonzero(trains)), found.at(np.flatnonzero(~trains))
        if len(training) == 0:
            raise InputError(
                f"training sees no context with both control cells and cells of {data.conditions[condition]!r}, "
                f"so {self.name} finds no pairs: leave that perturbation out, or bring such a context"
            )
        coders = {name: Optimiser([side.encoder, side.decoder], p.lr) for name, side in network.sides.items()}
        rise, kl_weight = warmup(p.kl_warmup), p.kl_weight / len(data.genes)

        def pretrain(side: str) -> Stage:
            def autoencode(batch: Batch) -> Terms:
                decoded, kl = network.sides[side].autoencode(batch.cells[side])
                mse = mean_squared_error(decoded, batch.cells[side])
                return {"loss": mse + kl_weight * rise(batch.epoch) * kl, "mse": mse, "kl": kl}

            bottleneck = Optimiser([network.sides[side].bottleneck], p.lr)
            return Stage(
                f"pretrain {side}",
                Shuffled(only(side, training), p.batch_size, p.drop_last),
                p.pretrain_epochs,
                [Update([coders[side], bottleneck], autoencode)],
                only(side, validation),
                p.patience,
                p.keep,
                measure=lambda batch: {"mse": autoencode(batch)["mse"]},
            )

        def discriminator_loss(batch: Batch) -> Terms:
            with torch.no_grad():
                native, translated, _ = network(batch.cells)
            return {"discriminators": network.discrimination(native, translated)}

        def generator_loss(batch: Batch) -> Terms:
            native, translated, _ = network(batch.cells)
            against = network.discrimination(native, translated)
            _, translated, kl = network(batch.cells)
            mse = reconstruction(network, batch, translated)
            against = torch.where(against < p.against_below, against, torch.zeros_like(against))
            return {"loss": mse + 2 * kl_weight * rise(batch.epoch) * kl - against, "mse": mse, "kl": kl}

        discriminators = Optimiser(
            [side.discriminator for side in network.sides.values()], p.discriminator_lr, rule="sgd"
        )
        translator = Optimiser([network.translator], p.lr)
        joint = Stage(
            "joint",
            Shuffled(training, p.batch_size, p.drop_last),
            p.epochs,
            [Update(discriminators, discriminator_loss), Update([*coders.values(), translator], generator_loss)],
            validation,
            p.patience,
            p.keep,
            measure=lambda batch: {"mse": reconstruction(network, batch, network(batch.cells, draw=True)[1])},
        )
        return [pretrain("control"), pretrain("perturbed"), joint]

    def _one_response(self, network: Butterfly, X: csr_matrix, groups: Rows, condition: int) -> npt.NDArray[np.float32]:
        control, perturbed = network.sides["control"], network.sides["perturbed"]

        def respond(x: Tensor) -> Tensor:
            translated, _, _ = network.translator(control.encoder(x), "control")
            cells: Tensor = perturbed.decoder(translated["perturbed"])
            return cells.masked_fill(cells < self.parameters.zero_below, 0.0)

        return self._in_batches(X, respond)


# What is learnt from, and how it is measured.


def pairs(data: PerturbationData, rows: Rows, condition: int, seed: int) -> Examples:
    """Control cells among ``rows``, each with its partner under ``condition``.

    A context without perturbed cells there, as the held-out one, has no pairs.
    """
    found = pair(data, rows[np.isin(data.condition[rows], (0, condition))], seed=seed)
    return Examples(data.X, {"control": found.control, "perturbed": found.partner}, {})


def only(side: str, examples: Examples) -> Examples:
    """One side of pairs."""
    return Examples(examples.matrix, {side: examples.cells[side]}, {})


def reconstruction(network: Butterfly, batch: Batch, translated: Mapping[str, Mapping[str, Tensor]]) -> Tensor:
    """Errors of own and translated cells decoded on both sides, four in all, summed."""
    errors = [
        mean_squared_error(network.sides[target].decoder(z), batch.cells[target])
        for latents in translated.values()
        for target, z in latents.items()
    ]
    return sum(errors[1:], start=errors[0])
