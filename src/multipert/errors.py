"""What speaks to the user about what was given: an exception, and a warning."""

import errno


class InputError(ValueError):
    """Input that cannot be used: one sentence naming what is wrong, where, and what to do.

    The command line prints the sentence and ends with exit code 2.
    """


class InputWarning(UserWarning):
    """Input that is used, but that the user should know something of: one sentence.

    The command line prints it on standard error.
    """


def is_disk_full(error: BaseException) -> bool:
    """Whether an error says that there is no room left to write; libraries tell it by number or in words."""
    number = error.errno if isinstance(error, OSError) else None
    return number in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
