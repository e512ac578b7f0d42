"""Adam in one call moves everything as torch's does."""

from typing import Any

import pytest
import torch
from torch import Tensor

from multipert.training.adam import Adam

OPTIONS: dict[str, Any] = {"lr": 0.03, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.01}


def parameters() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(shape, generator=generator) for shape in ((4, 3), (1, 5, 6), (7,))]
    drawn[1] = drawn[1].mT.contiguous().mT  # stored feature by feature, as wide layers are
    return [tensor.requires_grad_() for tensor in drawn]


def move(optimiser: torch.optim.Optimizer, moving: list[Tensor], steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        for parameter in moving:
            parameter.grad = torch.randn(parameter.shape, generator=generator).mul_(parameter.detach().abs())
        if step % 3 == 1:
            moving[0].grad = None
        optimiser.step()


def same(ours: list[Tensor], theirs: list[Tensor]) -> None:
    for tensor, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(tensor, expected)


def test_it_is_torchs_adam_with_steps_counted_for_each_parameter() -> None:
    ours, theirs = parameters(), parameters()
    move(Adam(ours, **OPTIONS), ours, range(7))
    move(torch.optim.Adam(theirs, **OPTIONS), theirs, range(7))
    same(ours, theirs)


@pytest.mark.parametrize("at", [0, 4])
def test_it_goes_on_from_its_state(at: int) -> None:
    ours, theirs = parameters(), parameters()
    first = Adam(ours, **OPTIONS)
    move(first, ours, range(at))
    state = first.state_dict()
    for entry in state["state"].values():  # as a file gives them back: stored row by row
        entry |= {name: value.clone(memory_format=torch.contiguous_format) for name, value in entry.items()}
    second = Adam(ours, **OPTIONS)
    second.load_state_dict(state)
    move(second, ours, range(at, 7))
    move(torch.optim.Adam(theirs, **OPTIONS), theirs, range(7))
    same(ours, theirs)


def test_without_gradients_nothing_moves() -> None:
    ours = parameters()
    Adam(ours, **OPTIONS).step()
    same(ours, parameters())
