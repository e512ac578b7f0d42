"""Put faster equals in the place of a network's modules, and take them out again."""

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from multipert.networks.film import FilmLayer
from multipert.networks.layers import HiddenLayer
from multipert.training.acceleration.bfloat16 import rounded_linear
from multipert.training.acceleration.sparse_input import dropout_of_sparse, linear_of_sparse
from multipert.training.acceleration.switches import switched_on


def accelerate(
    network: nn.Module, n_genes: int, *, sparse: bool, bfloat16: bool, compiled: bool = False
) -> Callable[[], None]:
    """Give modules of a finished network a faster ``forward``: the same function, parameters and names.

    Parameters
    ----------
    network
        Changes in place.
    n_genes
        Width of an expression profile: layers that read or write as many features read or write profiles.
    sparse
        Whether its profiles come as compressed sparse rows (dense ones are taken too).
    bfloat16
        Whether layers that write profiles, or read dense ones, take their products in bfloat16 in training.
    compiled
        Whether loops may be compiled: dropout then draws other masks from the same stream.

    Returns
    -------
    callable
        Makes the network the plain one again.
    """
    changed: list[nn.Module] = []
    transposed: list[nn.Parameter] = []

    def replace(module: nn.Module, forward: Callable[..., Tensor]) -> None:
        module.forward = partial(forward, module)
        changed.append(module)

    first: Callable[..., Tensor] = partial(linear_of_sparse, bfloat16=bfloat16)
    dropout: Callable[..., Tensor] = dropout_of_sparse
    hidden: dict[type[nn.Module], Callable[..., Tensor]] = {}
    if compiled:  # only here: numba and its loops take a second to load
        from multipert.training.acceleration import hidden_layer, sparse_loops

        first = partial(first, transposed=sparse_loops.by_column)
        dropout = sparse_loops.compiled_dropout_of_sparse
        hidden = {HiddenLayer: hidden_layer.compiled_hidden_layer, FilmLayer: hidden_layer.compiled_film_layer}
    for module in network.modules():
        if isinstance(module, nn.Linear) and module.in_features == n_genes and sparse:
            replace(module, first)
            weight = stored_weight(module)
            weight.data = weight.data.t().contiguous().t()  # input by input, as sparse rows look them up
            transposed.append(weight)
        elif isinstance(module, nn.Linear) and module.out_features == n_genes and bfloat16:
            if switched_on("bfloat16-output"):
                replace(module, rounded_linear)
        elif isinstance(module, nn.Dropout) and sparse:
            replace(module, dropout)
        elif type(module) in hidden:
            replace(module, hidden[type(module)])

    def restore() -> None:
        for module in changed:
            del module.forward
        for weight in transposed:
            weight.data = weight.data.contiguous()

    return restore


def stored_weight(linear: nn.Linear) -> nn.Parameter:
    """The parameter that a layer's weight is, or is computed from (spectral norm)."""
    parametrized = nn.utils.parametrize.is_parametrized(linear, "weight")
    return linear.get_parameter("parametrizations.weight.original" if parametrized else "weight")
