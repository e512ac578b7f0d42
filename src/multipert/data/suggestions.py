"""What a message says instead of a name that is not there."""

from collections.abc import Iterable
from difflib import get_close_matches

_SHOWN = 12


def did_you_mean(name: object, known: Iterable[object]) -> str:
    """Say which name was probably meant, if one comes close, and which names there are, the closest first.

    Parameters
    ----------
    name
        The name that was not found.
    known
        The names there are.

    Returns
    -------
    str
        The end of a sentence, such as ``did you mean 'B'? there are 'B', 'NK' and 3 more``.
    """
    names = list(dict.fromkeys(str(one) for one in known))
    if not names:
        return "there are none"
    spelt = {one.lower(): one for one in names}
    close = [spelt[match] for match in get_close_matches(str(name).lower(), spelt)]
    names = list(dict.fromkeys(close + names))
    meant = f"did you mean {close[0]!r}? " if close else ""
    if close and len(names) == 1:
        return meant.rstrip()
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return meant + ("there is " if len(names) == 1 else "there are ") + ", ".join(map(repr, names[:_SHOWN])) + rest


def some(names: Iterable[object], most: int = 5) -> str:
    """List the first few names, for a sentence: ``A, B, C, D, E and 3 more``."""
    listed = [text if (text := str(name)).isprintable() else repr(text) for name in names]
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")
