"""What a study holds out beside contexts: perturbations, combinations and doses that training never sees."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multipert.benchmark.toml_table import Table
from multipert.data import (
    HeldOut,
    PerturbationData,
    Split,
    check_source,
    content_of,
    did_you_mean,
    leave_combination_out,
    leave_dose_out,
    leave_perturbation_out,
    perturbation_folds,
)
from multipert.data.features import file_of
from multipert.errors import InputError

UNSEEN: Mapping[str, Any] = {
    "held_out_perturbations": Sequence[str] | int,
    "held_out_combinations": Sequence[str],
    "members_seen": int,
    "held_out_doses": Sequence[float | str],
    "features": str,
}
"""The keys of a data set that say what is unseen, and what models are told of it."""


@dataclass(frozen=True)
class Unseen:
    """What is held out beside contexts, as a study names it.

    Attributes
    ----------
    held_out_perturbations
        Perturbations, each in turn; or into how many parts all are divided, of which each is held out in turn.
    held_out_combinations
        Combinations ``A+B``, each in turn.
    members_seen
        How many of a combination's members training sees.
    held_out_doses
        Doses of every compound, or one perturbation at one (``name@dose``), each in turn.
    """

    held_out_perturbations: tuple[str, ...] | int = ()
    held_out_combinations: tuple[str, ...] = ()
    members_seen: int = 2
    held_out_doses: tuple[float | str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.held_out_perturbations or self.held_out_combinations or self.held_out_doses)

    def rules(self, data: PerturbationData, where: Callable[..., str]) -> Iterator[HeldOut]:
        """What is held out of ``data``, in turn.

        Parameters
        ----------
        data
            The cells.
        where
            Names file and line of a key.

        Raises
        ------
        InputError
            A name or a dose is not there: file and line are named.
        """
        if isinstance(self.held_out_perturbations, int):
            with _blame(where("held_out_perturbations")):
                parts = perturbation_folds(data, self.held_out_perturbations) if self.held_out_perturbations else []
            yield from (split.rule for split in parts)
        else:
            for number, name in enumerate(self.held_out_perturbations):
                with _blame(where("held_out_perturbations", number)):
                    yield leave_perturbation_out(data, name).rule
        for number, combination in enumerate(self.held_out_combinations):
            with _blame(where("held_out_combinations", number)):
                yield leave_combination_out(data, combination, seen=self.members_seen).rule
        for number, dose in enumerate(self.held_out_doses):
            with _blame(where("held_out_doses", number)):
                yield _at_dose(data, dose).rule


@dataclass(frozen=True)
class FeatureSource:
    """What models are told of perturbations, as a study names it.

    Attributes
    ----------
    source
        As :func:`multipert.read_features` takes it; a file's path is absolute.
    content
        Stands for it: its kind, and the content of its file.
    """

    source: str
    content: str


def read_unseen(table: Table) -> Unseen:
    """Read from a data set's table, whose kinds are checked, what is held out beside contexts."""
    named: dict[str, Any] = {key: table.values[key] for key in UNSEEN if key in table.values and key != "features"}
    kept: dict[str, Any] = {key: value if isinstance(value, int) else tuple(value) for key, value in named.items()}
    return Unseen(**kept)


def read_source(table: Table, folder: Path) -> FeatureSource | None:
    """Read from a data set's table what models are told of perturbations; paths start from ``folder``."""
    if "features" not in table.values:
        return None
    kind, _, path = table.values["features"].partition("=")
    with table.blame("features"):
        source = f"{kind}={(folder / Path(path).expanduser()).resolve()}" if path else kind
        check_source(source)
        file = source.partition("=")[2]
        content = content_of(file_of(file)) if path else ""
    return FeatureSource(source, f"{kind} {content}")


def _at_dose(data: PerturbationData, dose: float | str) -> Split:
    """Hold out a dose of every compound, or the one perturbation ``name@dose``."""
    if not isinstance(dose, str):
        return leave_dose_out(data, dose)
    if dose not in data.doses or dose == data.control:
        raise InputError(f"there is no dose {dose!r}; {did_you_mean(dose, data.perturbations)}")
    return leave_dose_out(data, data.doses[dose], compound=data.compound(dose))


@contextmanager
def _blame(place: str) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise InputError(f"{place}: {error}") from None
