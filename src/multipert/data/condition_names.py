"""What the name of a condition says: its members, ``A+B``, and its dose, ``A@2``."""

from collections.abc import Mapping


def undosed(name: str) -> str:
    """What a condition is a dose of: itself where it is none."""
    return name.rpartition("@")[0] or name


def members(name: str) -> tuple[str, ...]:
    """The members of a combination ``A+B``, or the name itself; a ``+`` at either end joins nothing."""
    parts = name.split("+")
    return tuple(parts) if all(parts) else (name,)


def members_at(name: str, doses: Mapping[str, float]) -> tuple[tuple[str, float | None], ...]:
    """The members of a perturbation and the dose of each; none where there is no dose.

    Parameters
    ----------
    name
        ``A``, ``A+B``, ``A+B@2`` (both at dose 2, where the perturbation is among ``doses``), or ``A@1+B@2``.
    doses
        The dose of each condition; empty without a dose key.
    """
    if name in doses:
        return tuple((member, doses[name]) for member in members(undosed(name)))
    found = []
    for member in members(name):
        compound, _, dose = member.rpartition("@")
        try:
            found.append((compound, float(dose)) if compound else (member, None))
        except ValueError:
            found.append((member, None))
    return tuple(found)
