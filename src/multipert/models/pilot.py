"""A pilot: a few perturbed cells of the very context that is to be predicted."""

from collections.abc import Mapping
from pathlib import Path

from anndata import AnnData
from scipy.sparse import csr_matrix

from multipert.data import Keys
from multipert.data.alignment import read_aligned
from multipert.data.scale import ExpressionSpace
from multipert.errors import InputError


def read_pilot(
    pilot: AnnData | str | Path,
    space: ExpressionSpace,
    keys: Keys,
    labels: Mapping[str, Mapping[str, object]],
    *,
    missing_genes: str,
) -> dict[str, csr_matrix]:
    """The cells of a pilot, by perturbation.

    Parameters
    ----------
    pilot
        The cells, or the path of a file. Where ``obs`` says what was done to them, each goes to its perturbation; where
        it does not, all are of the one perturbation that is predicted.
    space, keys, missing_genes
        As for :func:`~multipert.data.alignment.read_aligned`.
    labels
        What the columns of ``obs`` hold under each perturbation that is predicted.

    Raises
    ------
    InputError
        If none of the cells are of these perturbations, or several are predicted and nothing tells the cells apart.
    """
    cells = read_aligned(pilot, space, keys, missing_genes=missing_genes)
    columns = next(iter(labels.values())).keys()
    if not all(column in cells.obs for column in columns):
        if len(labels) > 1:
            raise InputError(
                f"the pilot has no column {', '.join(map(repr, columns))} that says which of {len(labels)} "
                "perturbations its cells got: add it, or predict one at a time"
            )
        return dict.fromkeys(labels, cells.X)
    found = {}
    for name, columns_hold in labels.items():
        of = [cells.obs[column].astype(str) == str(value) for column, value in columns_hold.items()]
        members = of[0] if len(of) == 1 else of[0] & of[1]
        found[name] = cells.X[members.to_numpy()]
    if not any(members.shape[0] for members in found.values()):
        wanted = f"{', '.join(map(repr, labels))} (obs {', '.join(map(repr, columns))})"
        raise InputError(
            f"no cell of the pilot is of {wanted}: a pilot is a few perturbed cells of the context that is predicted"
        )
    return found
