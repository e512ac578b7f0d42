"""Every layer against the plain torch layer it stands for, lane by lane."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from scipy.sparse import random as random_sparse
from torch import Tensor, nn

from multipert.networks import BatchNorm, Dropout, FiLM, FilmAutoencoder, Lanes, Linear, SparseBatch
from multipert.training import sparse_batch


def two_lanes(rows: csr_matrix) -> SparseBatch:
    """The same rows in each of two lanes, the second reversed."""
    first, second = rows, rows[::-1].tocsr()
    genes = rows.shape[1]
    return SparseBatch(
        torch.from_numpy(np.concatenate([first.indptr, second.indptr[1:] + first.indptr[-1]]).astype(np.int32)),
        torch.from_numpy(np.concatenate([first.indices, second.indices + genes]).astype(np.int32)),
        torch.from_numpy(np.concatenate([first.data, second.data])),
        (2, rows.shape[0], genes),
    )


@pytest.fixture
def rows() -> csr_matrix:
    return random_sparse(6, 20, density=0.3, format="csr", dtype=np.float32, random_state=0)


def test_sparse_batch_is_the_dense_batch(rows: csr_matrix) -> None:
    batch = two_lanes(rows)
    np.testing.assert_array_equal(batch.dense[0].numpy(), rows.toarray())
    np.testing.assert_array_equal(batch.dense[1].numpy(), rows.toarray()[::-1])


@pytest.mark.parametrize("lanes", [1, 2])
def test_linear_takes_sparse_rows_as_it_takes_dense_ones(rows: csr_matrix, lanes: int) -> None:
    batch = sparse_batch(rows) if lanes == 1 else two_lanes(rows)
    linear = Linear(Lanes(range(lanes)), 20, 5)
    incoming = torch.randn(lanes, 6, 5)

    def gradient(x: Tensor | SparseBatch) -> tuple[Tensor, Tensor]:
        linear.zero_grad()
        out = linear(x)
        out.backward(incoming)
        assert linear.weight.grad is not None
        return out.detach(), linear.weight.grad.clone()

    (sparse, sparse_gradient), (dense, dense_gradient) = gradient(batch), gradient(batch.dense)
    torch.testing.assert_close(sparse, dense)
    torch.testing.assert_close(sparse_gradient, dense_gradient)


def test_linear_starts_xavier_uniform_with_torchs_biases() -> None:
    linear = Linear(Lanes([0]), 300, 100)
    bound = (6 / 400) ** 0.5
    assert 0.95 * bound < linear.weight.abs().max().item() <= bound
    assert linear.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
    assert linear.bias.abs().max().item() <= 300**-0.5


def test_linear_starts_as_torchs_where_told_so() -> None:
    ours, torchs = Linear(Lanes([0]), 300, 100, initial="torch"), nn.Linear(300, 100)
    for mine, theirs in ((ours.weight, torchs.weight), (ours.bias, torchs.bias)):
        assert 0.9 * 300**-0.5 < mine.abs().max().item() <= 300**-0.5
        assert mine.std().item() == pytest.approx(theirs.std().item(), rel=0.2)


def test_batch_norm_is_torchs_in_every_lane() -> None:
    ours = BatchNorm(Lanes([0, 1]), 4, momentum=0.3, epsilon=1e-3)
    theirs = [nn.BatchNorm1d(4, momentum=0.3, eps=1e-3) for _ in range(2)]
    for _ in range(3):
        x = torch.randn(2, 8, 4) * 3 + 1
        expected = torch.stack([norm(lane) for norm, lane in zip(theirs, x, strict=True)])
        torch.testing.assert_close(ours(x), expected)
    ours.eval()
    expected = torch.stack([norm.eval()(lane) for norm, lane in zip(theirs, x, strict=True)])
    torch.testing.assert_close(ours(x), expected)


def test_dropout_drops_the_share_asked_for_and_keeps_the_mean() -> None:
    dropout = Dropout(Lanes([0]), 0.3)
    x = torch.ones(1, 200, 200)
    out = dropout(x)
    assert (out == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)
    assert out.mean().item() == pytest.approx(1.0, abs=0.02)
    assert torch.equal(dropout.eval()(x), x)


def test_dropout_of_sparse_rows_drops_values_alone(rows: csr_matrix) -> None:
    rows = csr_matrix(np.ones((200, 200), dtype=np.float32))
    out = Dropout(Lanes([0]), 0.2)(sparse_batch(rows))
    assert (out.dense == 0).float().mean().item() == pytest.approx(0.2, abs=0.01)
    assert out.dense.max().item() == pytest.approx(1 / 0.8)


@pytest.mark.parametrize("hidden", [(), (3,)])
def test_film_is_gamma_h_plus_beta_of_each_cells_one_hot(hidden: tuple[int, ...]) -> None:
    film = FiLM(Lanes([0, 1]), n_conditions=3, width=4, hidden=hidden)
    h, condition = torch.randn(2, 5, 4), torch.tensor([[0, 1, 2, 2, 1], [1, 1, 0, 2, 0]])
    modulated = film(h, condition)
    for lane in range(2):
        for cell in range(5):
            c = torch.zeros(3)
            c[condition[lane, cell]] = 1
            for layer in film.hidden.layers:
                c = nn.functional.leaky_relu(c @ layer.linear.weight[lane] + layer.linear.bias[lane, 0], 0.01)
            gamma, beta = (
                nn.functional.leaky_relu(c @ head.linear.weight[lane] + head.linear.bias[lane, 0], 0.01)
                for head in (film.gamma, film.beta)
            )
            torch.testing.assert_close(modulated[lane, cell], gamma * h[lane, cell] + beta)


def autoencoder(lanes: Lanes) -> FilmAutoencoder:
    return FilmAutoencoder(lanes, 20, 3, hidden=(8, 6), latent=4, mask=0.2, dropout=0.5, film_hidden=(2,))


def test_the_encoder_knows_nothing_of_the_condition_and_every_hidden_decoder_layer_does() -> None:
    network = autoencoder(Lanes([0]))
    assert all(layer.film is None for layer in network.encoder.layers)
    assert [layer.film is not None for layer in network.decoder.layers] == [True, True, False]
    assert len(network.films()) == 2


def test_the_autoencoder_is_the_one_of_the_spec(rows: csr_matrix) -> None:
    """Layer by layer in plain torch, in evaluation mode."""
    network = autoencoder(Lanes([0])).eval()
    x, condition = sparse_batch(rows), torch.tensor([[0, 1, 2, 0, 1, 2]])

    def plain(layers: nn.ModuleList, h: Tensor) -> Tensor:
        for layer in layers:
            h = h @ layer.linear.weight[0] + layer.linear.bias[0]
            if layer.norm is not None:
                h = (h - layer.norm.running_mean) / (layer.norm.running_variance + 1e-5).sqrt()
            if layer.film is not None:
                gamma, beta = layer.film.coefficients()
                h = gamma[0][condition[0]] * h + beta[0][condition[0]]
            h = nn.functional.leaky_relu(h, 0.01)
        return h

    expected = plain(network.decoder.layers, plain(network.encoder.layers, x.dense[0]))
    torch.testing.assert_close(network.decode(network.encode(x), condition)[0], expected)


def test_a_lane_comes_out_as_if_it_were_alone(rows: csr_matrix) -> None:
    together = autoencoder(Lanes([3, 7]))
    alone = [autoencoder(Lanes([3])), autoencoder(Lanes([7]))]
    condition = torch.tensor([[0, 1, 2, 0, 1, 2]])
    out = together.decode(together.encode(two_lanes(rows)), condition.expand(2, -1))
    for lane, (network, own) in enumerate(zip(alone, (rows, rows[::-1].tocsr()), strict=True)):
        torch.testing.assert_close(out[lane], network.decode(network.encode(sparse_batch(own)), condition)[0])


def test_random_streams_resume_where_they_stood() -> None:
    lanes = Lanes([1, 2])
    lanes.normal(5)
    state = lanes.state()
    expected = lanes.uniform(3)
    lanes.restore(state)
    assert torch.equal(lanes.uniform(3), expected)
