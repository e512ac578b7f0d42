"""Which pieces of acceleration are at work: all of them, but where a benchmark asks what one gains."""

PIECES = {
    "sparse-input": "batches stay sparse; the first layer and the input dropout see the values that are there alone",
    "sparse-loss": "the squared error to a sparse target is taken without writing it out",
    "bfloat16-output": "the output layer's products are taken in bfloat16 where the processor has it",
    "compiled-loops": "dropout, normalisation and transposition are loops compiled by numba, in fits that are long",
}
"""Each piece's name, and what it does."""

_left_out: set[str] = set()


def switched_on(piece: str) -> bool:
    """Whether a piece is at work."""
    return piece not in _left_out


def leave_out(pieces: set[str]) -> None:
    """From now on, in this process, do without these pieces (and with all others)."""
    _left_out.clear()
    _left_out.update(pieces)
