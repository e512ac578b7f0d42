"""Drugs by their structure: fingerprints and scaffolds, by way of RDKit, which is an extra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from multipert.errors import InputError

if TYPE_CHECKING:
    from multipert.data.perturbation_data import PerturbationData
    from multipert.data.splits import Split


def read_smiles(path: str | Path) -> dict[str, str]:
    """Read SMILES by name from a csv file: names in the first column, SMILES in the column ``smiles``.

    Raises
    ------
    InputError
        The file cannot be read or has no such column.
    """
    try:
        table = pd.read_csv(path, dtype=str, sep="\t" if str(path).endswith(".tsv") else ",")
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the structures {path} ({error}): give a csv file of names and SMILES") from None
    columns = {str(column).lower(): column for column in table.columns}
    if "smiles" not in columns or len(columns) < 2:
        raise InputError(f"{path} has no column 'smiles' beside the names: it has {', '.join(map(str, table.columns))}")
    names = table[table.columns[0]]
    if names.isna().any() or names.duplicated().any():
        twice = names[names.isna() | names.duplicated()].iloc[0]
        raise InputError(f"{path} names {twice!r} in its first column, which is to name each drug once")
    return dict(zip(names, table[columns["smiles"]].fillna(""), strict=True))


def fingerprints(smiles: Mapping[str, str], *, n_bits: int, radius: int) -> NDArray[np.float32]:
    """Morgan fingerprints of structures, (drugs, bits): 1 where a drug has a substructure of that bit.

    Raises
    ------
    InputError
        RDKit is not installed, or a structure cannot be read.
    """
    from_rdkit = _rdkit().rdFingerprintGenerator.GetMorganGenerator(radius=radius, fpSize=n_bits)
    table = np.zeros((len(smiles), n_bits), dtype=np.float32)
    for row, molecule in zip(table, _molecules(smiles), strict=True):
        row[list(from_rdkit.GetFingerprint(molecule).GetOnBits())] = 1
    return table


def scaffolds(smiles: Mapping[str, str]) -> dict[str, str]:
    """The Bemis-Murcko scaffold of each drug, as SMILES: its rings and what links them; empty where there are none.

    Raises
    ------
    InputError
        RDKit is not installed, or a structure cannot be read.
    """
    murcko = _rdkit().MurckoScaffold
    return {
        name: str(murcko.MurckoScaffoldSmiles(mol=molecule))
        for name, molecule in zip(smiles, _molecules(smiles), strict=True)
    }


def scaffold_groups(smiles: Mapping[str, str], k: int) -> list[list[str]]:
    """Divide drugs into k parts of near equal number such that no scaffold is in two.

    The largest group of one scaffold goes first, each to the part that is smallest so far; drugs without rings are one
    group each.

    Raises
    ------
    InputError
        There are fewer scaffolds than parts, or RDKit is not installed.
    """
    of = scaffolds(smiles)
    groups: dict[str, list[str]] = {}
    for name in sorted(smiles):
        groups.setdefault(of[name] or f"no rings: {name}", []).append(name)
    if not 2 <= k <= len(groups):
        raise InputError(f"{len(groups)} scaffolds cannot be divided into {k} parts: take 2 to {len(groups)}")
    parts: list[list[str]] = [[] for _ in range(k)]
    for group in sorted(groups.values(), key=lambda names: (-len(names), names)):
        min(parts, key=len).extend(group)
    return [sorted(part) for part in parts]


def scaffold_folds(data: PerturbationData, smiles: str | Path | Mapping[str, str], k: int) -> list[Split]:
    """Divide the drugs into k parts, no scaffold in two of them, and hold out one part after another.

    Parameters
    ----------
    data
        The cells.
    smiles
        SMILES by name, or a csv file of them, for every drug of ``data``.
    k
        How many parts.

    Raises
    ------
    InputError
        A drug has no structure, there are fewer scaffolds than parts, or RDKit is not installed.
    """
    from multipert.data.splits import leave_perturbation_out

    structures = smiles if isinstance(smiles, Mapping) else read_smiles(smiles)
    drugs = sorted({data.compound(one) for one in data.perturbations})
    missing = [drug for drug in drugs if drug not in structures]
    if missing:
        raise InputError(f"there is no structure of {missing[0]!r} and {len(missing) - 1} more: add their SMILES")
    parts = scaffold_groups({drug: structures[drug] for drug in drugs}, k)
    return [leave_perturbation_out(data, part) for part in parts]


def _molecules(smiles: Mapping[str, str]) -> Sequence[Any]:
    rdkit = _rdkit()
    with rdkit.rdBase.BlockLogs():
        molecules = [rdkit.Chem.MolFromSmiles(text) if text else None for text in smiles.values()]
    unread = [name for name, molecule in zip(smiles, molecules, strict=True) if molecule is None]
    if unread:
        raise InputError(
            f"the structure of {unread[0]!r} is no SMILES ({smiles[unread[0]]!r}), and {len(unread) - 1} more cannot "
            "be read: correct them"
        )
    return molecules


def _rdkit() -> Any:
    """RDKit, with the parts of it that are used."""
    try:
        from rdkit import Chem, rdBase
        from rdkit.Chem import rdFingerprintGenerator
        from rdkit.Chem.Scaffolds import MurckoScaffold
    except ImportError:
        raise InputError("structures are read by RDKit, which is not here: pip install 'multipert[drugs]'") from None
    return SimpleNamespace(
        Chem=Chem, rdBase=rdBase, rdFingerprintGenerator=rdFingerprintGenerator, MurckoScaffold=MurckoScaffold
    )
