"""The output layer's products in bfloat16."""

import torch
from torch import Tensor, nn
from torch.nn import functional


def rounded_linear(linear: nn.Linear, x: Tensor) -> Tensor:
    """``linear(x)`` in bfloat16 while it is trained: it holds nearly all of the arithmetic, three products a step.

    Weights and their gradients are float32. On the CPU the result stays in bfloat16, since nothing is gained by
    widening what was rounded; not every normalisation of a GPU takes it so.
    """
    if not linear.training:
        return functional.linear(x, linear.weight, linear.bias)
    low = torch.bfloat16
    rounded = functional.linear(x.to(low), linear.weight.to(low), linear.bias.to(low))
    return rounded if rounded.is_cpu else rounded.float()
