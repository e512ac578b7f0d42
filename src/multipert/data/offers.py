"""What a message offers instead of a name that is not there."""

from collections.abc import Iterable
from difflib import get_close_matches

_SHOWN = 12


def offer(name: object, known: Iterable[object]) -> str:
    """Say which names there are, those closest to the one asked for first.

    Parameters
    ----------
    name
        The name that was not found.
    known
        The names there are.

    Returns
    -------
    str
        The end of a sentence, such as ``there are 'B', 'NK' and 3 more``.
    """
    names = list(dict.fromkeys(str(one) for one in known))
    if not names:
        return "there are none"
    spelt = {one.lower(): one for one in names}
    close = [spelt[match] for match in get_close_matches(str(name).lower(), spelt)]
    names = list(dict.fromkeys(close + names))
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ("there is " if len(names) == 1 else "there are ") + ", ".join(map(repr, names[:_SHOWN])) + rest
