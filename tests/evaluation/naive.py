"""Every formula once more: slow, plain, float64, written from the definitions."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def pearson(x: Floats, y: Floats) -> float:
    return float(np.corrcoef(x, y)[0, 1])


def slope(x: Floats, y: Floats) -> float:
    return float(np.linalg.lstsq(x[:, None], y, rcond=None)[0][0])


def r2(true: Floats, predicted: Floats) -> float:
    frames = pd.DataFrame(true), pd.DataFrame(predicted)
    values = []
    for i in range(100):
        a, b = (frame.sample(frac=0.8, random_state=i).mean(axis=0).to_numpy() for frame in frames)
        values.append(pearson(a, b) ** 2)
    return float(np.mean(values))


def pcs(*parts: Floats) -> list[Floats]:
    cells = np.concatenate(parts)
    cells = cells - cells.mean(axis=0)
    u, s, _ = np.linalg.svd(cells, full_matrices=False)
    k = min(50, min(cells.shape) - 1)
    return np.split(u[:, :k] * s[:k], np.cumsum([len(part) for part in parts])[:-1])


def pairs(x: Floats, y: Floats) -> Floats:
    """Squared distances from differences."""
    return np.array([np.sum((a - y) ** 2, axis=1) for a in x])


def edistance(x: Floats, y: Floats) -> float:
    return float(2 * pairs(x, y).mean() - pairs(x, x).mean() - pairs(y, y).mean())


def euclidean(x: Floats, y: Floats) -> float:
    return float(np.sqrt(np.sum((x.mean(axis=0) - y.mean(axis=0)) ** 2)))


def mean_pairwise(x: Floats, y: Floats) -> float:
    return float(np.sqrt(pairs(x, y)).mean())


def linear_mmd(x: Floats, y: Floats) -> float:
    return float((x @ x.T).mean() + (y @ y.T).mean() - 2 * (x @ y.T).mean())


def within(x: Floats) -> float:
    """Mean over pairs of distinct cells."""
    return float(np.mean([np.sqrt(np.sum((a - b) ** 2)) for a, b in itertools.combinations(x, 2)]))


def energy(x: Floats, y: Floats) -> float:
    return 2 * mean_pairwise(x, y) - within(x) - within(y)


def gaussian_mmd(x: Floats, y: Floats) -> float:
    cells = np.concatenate([x, y])
    median = np.median([np.sqrt(np.sum((a - b) ** 2)) for a, b in itertools.combinations(cells, 2)])
    values = []
    for factor in (0.5, 1, 2):

        def kernel(a: Floats, b: Floats, width: float = factor * float(median)) -> Floats:
            return np.exp(-pairs(a, b) / (2 * width**2))

        n, m = len(x), len(y)
        kxx, kyy = (kernel(x, x).sum() - n) / (n * (n - 1)), (kernel(y, y).sum() - m) / (m * (m - 1))
        values.append(kxx + kyy - 2 * kernel(x, y).mean())
    return float(np.mean(values))


def covariance_distance(true: Floats, predicted: Floats) -> float:
    """Sums over pairs of genes, a squared covariance less its sampling variance."""
    genes = np.argsort(-true.var(axis=0, ddof=1), kind="stable")[:100]
    unit = true[:, genes].std(axis=0)
    sides = [side[:, genes] / unit for side in (true, predicted)]

    def covariance(cells: Floats, g: int, h: int) -> tuple[float, float]:
        products = (cells[:, g] - cells[:, g].mean()) * (cells[:, h] - cells[:, h].mean())
        value = products.sum() / (len(cells) - 1)
        return value, (np.mean(products**2) - value**2) / (len(cells) - 1)

    size = error = 0.0
    for g, h in itertools.permutations(range(len(genes)), 2):
        (c, noise), (d, other) = (covariance(cells, g, h) for cells in sides)
        size += c**2 - noise
        error += (c - d) ** 2 - noise - other
    return error / size


def scaled(control: Floats, truth: Floats, predicted: Floats) -> list[Floats]:
    """Expressed genes in units of their standard deviation over control and true cells, cut at 10."""
    reference = np.concatenate([control, truth])
    genes = ((reference > 0).mean(axis=0) >= 0.05) & (reference.std(axis=0) > 0)
    mean, spread = reference[:, genes].mean(axis=0), reference[:, genes].std(axis=0)
    return [np.clip((part[:, genes] - mean) / spread, -10, 10) for part in (control, truth, predicted)]
