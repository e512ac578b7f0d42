"""Products of layers as wide as a profile in bfloat16."""

import torch
from torch import Tensor, nn
from torch.nn import functional


def rounded_linear(linear: nn.Linear, x: Tensor) -> Tensor:
    """``linear(x)`` in bfloat16 while it is trained: layers as wide as a profile hold nearly all of the arithmetic.

    Weights and their gradients are float32. On the CPU the result stays in bfloat16, since nothing is gained by
    widening what was rounded; not every normalisation of a GPU takes it so.
    """
    if not linear.training:
        return functional.linear(x.to(linear.weight.dtype), linear.weight, linear.bias)
    low = torch.bfloat16
    rounded = functional.linear(x.to(low), linear.weight.to(low), linear.bias.to(low))
    return rounded if rounded.is_cpu else rounded.float()
