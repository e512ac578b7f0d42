"""One call moves every lane as torch's optimiser moves it alone."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from multipert.training import Optimiser
from multipert.training.lane_optimiser import LaneOptimiser

LANES = 3


class Weights(nn.Module):
    """Stacked weights of several shapes; one of them stored feature by feature, as wide layers are."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        drawn = [torch.randn(LANES, *shape, generator=generator) for shape in ((4, 3), (5, 6), (7,))]
        drawn[1] = drawn[1].mT.contiguous().mT
        self.all = nn.ParameterList(drawn)


def optimiser(weights: Weights, rule: Any = "adam") -> LaneOptimiser:
    return LaneOptimiser(
        Optimiser([weights], 0.03, rule=rule, betas=(0.8, 0.95), epsilon=1e-6, weight_decay=0.01 * (rule == "adam"))
    )


def gradient(step: int, shape: torch.Size) -> Tensor | None:
    """Of a parameter's every lane; the small ones have none every third step."""
    if step % 3 == 1 and len(shape) == 2:
        return None
    return torch.randn(shape, generator=torch.Generator().manual_seed(step))


def moves(step: int) -> list[int]:
    """Which lanes move at a step: all, or all but the last."""
    return list(range(LANES if step % 2 else LANES - 1))


def rate(step: int) -> float:
    return 1.0 / (1 + step)


def move(ours: LaneOptimiser, steps: range) -> None:
    for step in steps:
        for parameter in ours.parameters:
            parameter.grad = gradient(step, parameter.shape)
        ours.step(moves(step), rate(step))


def alone(lane: int, steps: int, rule: str) -> list[Tensor]:
    """One lane's weights as torch's optimiser moves them."""
    whole = [parameter.detach() for parameter in Weights().all]
    own = [nn.Parameter(tensor[lane].clone()) for tensor in whole]
    theirs: torch.optim.Optimizer = torch.optim.SGD(own, lr=0.03)
    if rule == "adam":
        theirs = torch.optim.Adam(own, lr=0.03, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.01)
    for step in range(steps):
        if lane not in moves(step):
            continue
        for parameter, tensor in zip(own, whole, strict=True):
            drawn = gradient(step, tensor.shape)
            parameter.grad = None if drawn is None else drawn[lane]
        theirs.param_groups[0]["lr"] = 0.03 * rate(step)
        theirs.step()
    return [parameter.detach() for parameter in own]


@pytest.mark.parametrize("rule", ["adam", "sgd"])
def test_each_lane_moves_as_torch_moves_it_alone(rule: str) -> None:
    weights = Weights()
    move(optimiser(weights, rule), range(7))
    for lane in range(LANES):
        for ours, theirs in zip(weights.all, alone(lane, 7, rule), strict=True):
            torch.testing.assert_close(ours[lane], theirs)


@pytest.mark.parametrize("rule", ["adam", "sgd"])
@pytest.mark.parametrize("at", [0, 4])
def test_it_goes_on_from_its_state(at: int, rule: str) -> None:
    weights, undisturbed = Weights(), Weights()
    first, second = optimiser(weights, rule), optimiser(weights, rule)
    move(first, range(at))
    second.restore({name: tensor.clone() for name, tensor in first.state().items()})
    move(second, range(at, 7))
    move(optimiser(undisturbed, rule), range(7))
    for ours, expected in zip(weights.all, undisturbed.all, strict=True):
        assert torch.equal(ours, expected)


def test_without_gradients_nothing_moves() -> None:
    weights = Weights()
    optimiser(weights).step(range(LANES), 1.0)
    for ours, expected in zip(weights.all, Weights().all, strict=True):
        assert torch.equal(ours, expected)
