"""A translator of latents between sides, through one Gaussian space that they share (scButterfly, Cao 2024)."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from multipert.networks.gaussian import GaussianHeads
from multipert.networks.layers import HiddenLayer


class Translator(nn.Module):
    """From the latent of any side, through a shared Gaussian space, to the latent of any side.

    Every side has a mean and a log-variance head into the shared space and a layer out of it, each linear with batch
    normalisation and LeakyReLU. A translator of one side is the bottleneck of that side's variational autoencoder.

    Parameters
    ----------
    sides
        Their names.
    latent
        Width of each side's latent.
    shared
        Width of the shared space.
    """

    into: Mapping[str, GaussianHeads]

    def __init__(self, sides: Sequence[str], *, latent: int, shared: int) -> None:
        super().__init__()
        into = {side: GaussianHeads(lambda: HiddenLayer(latent, shared)) for side in sides}
        self.into = nn.ModuleDict(into)  # type: ignore[assignment]
        self.out_of = nn.ModuleDict({side: HiddenLayer(shared, latent) for side in sides})

    def forward(self, z: Tensor, source: str, *, draw: bool = False) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Translate latents ``z`` ``(cells, latent)`` of the side ``source``.

        Parameters
        ----------
        z
            What is translated.
        source
            The side it comes from.
        draw
            Whether to go through a sample of the shared space in evaluation mode too.

        Returns
        -------
        translated
            The latent on every side, each ``(cells, latent)``: through a sample of the shared space in training mode,
            through its mean in evaluation mode.
        mean, variance
            Of the shared space, each ``(cells, shared)``.
        """
        mean, log_variance = self.into[source](z)
        variance = log_variance.exp()
        heads = self.into[source]
        shared = heads.draw(mean, variance) if draw else heads.sample(mean, variance)
        return {side: out(shared) for side, out in self.out_of.items()}, mean, variance
