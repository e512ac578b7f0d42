"""Where to write names beside dots, so that they can be read."""

import numpy as np
from numpy.typing import NDArray

_ANGLES = np.linspace(0, 2 * np.pi, 16, endpoint=False)
_GAPS = (5.0, 12.0, 22.0, 34.0, 48.0, 66.0)
_PADDING = 2.0
_ALONG = np.linspace(0, 1, 12)  # points of the line from a dot to its label


def place_labels(
    dots: NDArray[np.float64],
    sizes: NDArray[np.float64],
    bounds: tuple[float, float, float, float],
    others: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Find a place near each dot for its label, one label after the other.

    Each label takes the best of many places around its dot: off the labels that are placed already and the lines
    that tie them to their dots, inside the bounds, off other dots, and near.

    Parameters
    ----------
    dots
        (labels, 2) what the labels name; in points, as all else.
    sizes
        (labels, 2) width and height of the labels.
    bounds
        Left, bottom, right and top of the area.
    others
        (dots, 2) what the labels had better not cover.

    Returns
    -------
    ndarray
        (labels, 2) centres of the labels.
    """
    low, high = np.array(bounds[:2]), np.array(bounds[2:])
    placed, lines = np.empty((0, 4)), np.empty((0, 2))
    centres = np.empty((len(dots), 2))
    for number, (dot, size) in enumerate(zip(dots, sizes, strict=True)):
        half = size / 2 + _PADDING
        places = dot + _directions(half)
        start, end = places - half, places + half
        outside = np.maximum(low - start, 0).sum(axis=1) + np.maximum(end - high, 0).sum(axis=1)
        overlap = np.prod(
            np.maximum(
                np.minimum(end[:, None], placed[None, :, 2:]) - np.maximum(start[:, None], placed[None, :, :2]), 0
            ),
            axis=2,
        ).sum(axis=1)
        named = _covered(start, end, np.delete(dots, number, axis=0))
        covered = _covered(start, end, others)
        crossed = _covered(start, end, lines)
        ties = dot + (places - dot)[:, None] * _ALONG[:, None]  # (places, points, 2)
        through = ((ties[:, :, None] > placed[:, :2]) & (ties[:, :, None] < placed[:, 2:])).all(axis=3).sum(axis=(1, 2))
        away = np.linalg.norm(places - dot, axis=1)
        cost = 100 * (outside + overlap) + 60 * (named + crossed + through) + 6 * np.minimum(covered, 20) + away
        best = int(np.argmin(cost))
        centres[number] = places[best]
        lines = np.vstack([lines, ties[best]])
        placed = np.vstack([placed, np.concatenate([start[best], end[best]])])
    return centres


def _directions(half: NDArray[np.float64]) -> NDArray[np.float64]:
    """Offsets (places, 2) of a label's centre, such that its edge keeps each gap from its dot in each direction."""
    unit = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)
    return np.concatenate([unit * (half + gap) for gap in _GAPS])


def _covered(start: NDArray[np.float64], end: NDArray[np.float64], dots: NDArray[np.float64]) -> NDArray[np.int64]:
    """Count the dots that each place covers, (places,)."""
    inside = (dots[None] >= start[:, None]) & (dots[None] <= end[:, None])
    return np.asarray(inside.all(axis=2).sum(axis=1))
