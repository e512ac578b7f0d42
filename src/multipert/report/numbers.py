"""Numbers as they are printed."""

from collections.abc import Iterable

import numpy as np

ARROWS = {"high": "↑", "low": "↓", "one": "→ 1"}
BETTER = {"high": "higher is better", "low": "lower is better", "one": "the nearer to 1 the better"}
DASH = "\N{EN DASH}"
_MINUS = "\N{MINUS SIGN}"


def number(value: float, decimals: int | None = None) -> str:
    """Print a number: three digits that matter unless told otherwise, a dash where there is none."""
    if not np.isfinite(value):
        return DASH
    if decimals is None:
        decimals = shared_decimals([value])
    if decimals > 5:
        return f"{value:.2e}".replace("-", _MINUS)
    text = f"{value:,.{decimals}f}"
    # Nothing is left of a small negative number: its sign would only puzzle.
    if float(text.replace(",", "")) == 0:
        text = text.removeprefix("-")
    return text.replace("-", _MINUS)


def shared_decimals(values: Iterable[float]) -> int:
    """Choose decimals that leave three digits to a typical value of a column; none where all are whole."""
    sizes = np.abs([value for value in values if np.isfinite(value) and value != 0])
    if len(sizes) == 0 or np.all(sizes == np.round(sizes)):
        return 0
    return max(0, 2 - int(np.floor(np.log10(np.median(sizes)))))
