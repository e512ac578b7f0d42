"""Which columns and layers of an AnnData say what each cell is."""

from collections.abc import Sequence
from dataclasses import dataclass

from multipert.errors import InputError

SEPARATOR = " | "
"""Stands between the labels of several columns that make one context: ``B | patient 3``."""


@dataclass(frozen=True, kw_only=True)
class Keys:
    """Where an AnnData says what each cell is.

    Made by keywords, which fills in what may be left out and refuses what does not go together;
    ``Keys(**dataclasses.asdict(keys))`` gives the same keys back, also by way of JSON.

    Attributes
    ----------
    perturbation_key
        The column of ``obs`` that names the perturbation; none where all perturbed cells got one compound.
    control
        What control cells are labelled (with ``perturbation_key``), or what to call the cells at dose 0.
    context_key
        The column of ``obs`` that names the context, or several: their labels together make it (``B | patient 3``).
    dose_key
        The column of ``obs`` that gives the dose.
    compound
        The one compound whose doses ``dose_key`` gives, without ``perturbation_key``; by default ``dose_key`` itself.
    covariate_key
        The column of ``obs`` (or several) that names a second grouping, such as the donor or the batch, within which
        perturbed cells are compared with control cells.
    layer
        The layer that holds the log-normalised expression; none means ``X``.
    counts_layer
        The layer that holds the raw counts, for models that learn from counts.

    Raises
    ------
    InputError
        Neither a perturbation nor a dose key, no control label, or two keys that exclude each other.
    """

    perturbation_key: str | None = None
    control: str | None = None
    context_key: str | Sequence[str]
    dose_key: str | None = None
    compound: str | None = None
    covariate_key: str | Sequence[str] | None = None
    layer: str | None = None
    counts_layer: str | None = None

    def __post_init__(self) -> None:
        if self.perturbation_key is None and self.dose_key is None:
            raise InputError("nothing says what was done to a cell: give perturbation_key, dose_key or both")
        self._set("context_key", _one_or_several("context_key", self.context_key))
        if self.covariate_key is not None:
            self._set("covariate_key", _one_or_several("covariate_key", self.covariate_key))
        for role, columns in (("context", self.context_columns), ("covariate", self.covariate_columns)):
            for column in columns:
                if column in (self.perturbation_key, self.dose_key):
                    raise InputError(
                        f"the {role} key {column!r} is also the perturbation or dose key: give another column"
                    )
        both = [column for column in self.covariate_columns if column in self.context_columns]
        if both:
            raise InputError(
                f"{both[0]!r} is context key and covariate key: a context is compared within itself already, "
                "leave it out of the covariate key"
            )
        if self.perturbation_key is None:
            self._set("control", "control" if self.control is None else str(self.control))
            self._set("compound", self.compound or self.dose_key)
        elif self.control is None:
            raise InputError(f"control is missing: give the label of control cells in obs[{self.perturbation_key!r}]")
        elif self.compound is not None:
            raise InputError(
                f"compound {self.compound!r} is given beside perturbation_key {self.perturbation_key!r}, which names "
                "compounds: give one of the two"
            )
        self._set("control", str(self.control))

    @property
    def context_columns(self) -> tuple[str, ...]:
        """The columns that make the context."""
        return (self.context_key,) if isinstance(self.context_key, str) else tuple(self.context_key)

    @property
    def covariate_columns(self) -> tuple[str, ...]:
        """The columns that make the covariate; none without a covariate key."""
        key = self.covariate_key
        return () if key is None else (key,) if isinstance(key, str) else tuple(key)

    def _set(self, field: str, value: object) -> None:
        object.__setattr__(self, field, value)  # how a frozen dataclass is filled in


def _one_or_several(role: str, key: str | Sequence[str]) -> str | tuple[str, ...]:
    """One column as its name, several as a tuple."""
    columns = (key,) if isinstance(key, str) else tuple(key)
    if not columns or not all(isinstance(one, str) for one in columns):
        raise InputError(f"{role} takes the name of a column of obs, or several, not {key!r}")
    if len(set(columns)) < len(columns):
        raise InputError(f"{role} names a column twice ({', '.join(map(repr, columns))}): name each once")
    return columns[0] if len(columns) == 1 else columns
