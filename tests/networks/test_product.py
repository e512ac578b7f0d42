"""Dense products in every lane, in either storage order and either number format."""

import pytest
import torch
from torch import Tensor, nn

from multipert.errors import InputError
from multipert.networks import MLP, Lanes, Layer, Linear, set_precision
from multipert.networks.layers import WIDE
from multipert.networks.masks import draw_kept
from multipert.networks.product import affine

CPU = torch.device("cpu")


def inputs(lanes: int, *, by_feature: bool) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (
        torch.randn(shape, generator=generator) for shape in ((lanes, 5, 7), (lanes, 7, 11), (lanes, 1, 11))
    )
    if by_feature:
        weight = weight.mT.contiguous().mT
    return x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("by_feature", [False, True])
def test_affine_and_its_gradients_are_those_of_the_plain_formula(lanes: int, by_feature: bool) -> None:
    ours, plain = inputs(lanes, by_feature=by_feature), inputs(lanes, by_feature=by_feature)
    out, expected = affine(*ours), torch.einsum("lci,lio->lco", *plain[:2]) + plain[2]
    torch.testing.assert_close(out, expected)
    slope = torch.randn(out.shape)
    (out * slope).sum().backward()
    (expected * slope).sum().backward()
    for tensor, same in zip(ours, plain, strict=True):
        torch.testing.assert_close(tensor.grad, same.grad)
    # The optimiser runs over both side by side.
    assert ours[1].grad.stride() == ours[1].stride()


def test_a_gradient_nobody_asks_for_is_not_taken() -> None:
    x, weight, bias = inputs(1, by_feature=False)
    (gradient,) = torch.autograd.grad(affine(x, weight.detach(), bias.detach()).sum(), x)
    torch.testing.assert_close(gradient, weight.sum(-1).unsqueeze(1).expand_as(gradient))


@pytest.mark.parametrize("by_feature", [False, True])
def test_bfloat16_rounds_the_products_and_nothing_else(by_feature: bool) -> None:
    low, full = inputs(2, by_feature=by_feature), inputs(2, by_feature=by_feature)
    out, expected = affine(*low, torch.bfloat16), affine(*full)
    assert out.dtype == torch.bfloat16
    assert 0 < (out - expected).abs().max() < 0.05
    out.float().square().sum().backward()
    expected.square().sum().backward()
    for tensor, same in zip(low, full, strict=True):
        assert tensor.grad.dtype == torch.float32
        assert ((tensor.grad - same.grad).norm() / same.grad.norm()).item() < 0.02


def test_wide_layers_alone_take_the_lower_precision_and_in_training_alone() -> None:
    network = MLP([Layer(Linear(Lanes([0]), 8, 16)), Layer(Linear(Lanes([0]), 16, WIDE))])
    set_precision(network, "bfloat16", CPU)
    narrow, wide = (layer.linear for layer in network.layers)
    assert (narrow.precision, wide.precision) == (torch.float32, torch.bfloat16)
    x = torch.randn(1, 4, 8)
    rounded, exact = network(x), network.eval()(x)
    expected = nn.functional.leaky_relu(
        nn.functional.leaky_relu(x @ narrow.weight + narrow.bias, 0.01) @ wide.weight + wide.bias, 0.01
    )
    torch.testing.assert_close(exact, expected)
    assert not torch.equal(rounded.float(), exact)
    torch.testing.assert_close(rounded.float(), exact, rtol=0.02, atol=0.02)
    set_precision(network.train(), "float32", CPU)
    torch.testing.assert_close(network(x), expected)


def test_auto_is_bfloat16_where_the_hardware_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = Linear(Lanes([0]), 2, WIDE)
    for has, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr("multipert.networks.precision.has_bfloat16", lambda _, has=has: has)
        set_precision(layer, "auto", CPU)
        assert layer.precision == expected


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(InputError, match="no precision 'half': choose from auto, float32, bfloat16"):
        set_precision(nn.Module(), "half", CPU)  # type: ignore[arg-type]


def test_a_wide_layer_keeps_its_shape_and_its_first_weights() -> None:
    """How the weights are stored changes nothing of what they are."""
    wide, narrow = Linear(Lanes([4]), 3, WIDE), Linear(Lanes([4]), 3, WIDE - 1)
    assert wide.weight.shape == (1, 3, WIDE)
    generator = torch.Generator().manual_seed(4)
    bound = (6 / (3 + WIDE)) ** 0.5
    torch.testing.assert_close(wide.weight[0], torch.rand(3, WIDE, generator=generator) * 2 * bound - bound)
    assert narrow.weight.is_contiguous()


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_masks_keep_the_share_asked_for_evenly_and_repeat_with_the_seed(rate: float) -> None:
    first, again = (draw_kept((1001, 403), rate, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first, again)
    kept = first.float()
    assert kept.mean().item() == pytest.approx(1 - rate, abs=0.003)
    by_word = kept.flatten()[: 4 * (kept.numel() // 4)].view(-1, 4)  # four values share a random number
    assert by_word.mean(0).tolist() == pytest.approx([1 - rate] * 4, abs=0.006)
    assert torch.corrcoef(by_word.T).fill_diagonal_(0).abs().max().item() < 0.02
