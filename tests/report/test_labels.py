"""Names in a scatter: apart, inside, near."""

import numpy as np

from multipert.report.labels import place_labels


def test_labels_of_a_crowd_do_not_overlap() -> None:
    rng = np.random.default_rng(0)
    dots = 150 + rng.normal(0, 12, (12, 2))
    sizes = np.tile([40.0, 11.0], (12, 1))
    centres = place_labels(dots, sizes, (0, 0, 300, 300), dots)
    apart = np.abs(centres[:, None] - centres[None]) >= sizes[0]
    assert (apart.any(axis=2) | np.eye(12, dtype=bool)).all()
    assert ((centres - sizes / 2 >= 0) & (centres + sizes / 2 <= 300)).all()
    assert np.linalg.norm(centres - dots, axis=1).max() < 120


def test_a_label_alone_stays_beside_its_dot() -> None:
    dot = np.array([[50.0, 50.0]])
    (centre,) = place_labels(dot, np.array([[30.0, 10.0]]), (0, 0, 100, 100), np.empty((0, 2)))
    assert np.linalg.norm(centre - dot[0]) < 30
