"""The one exception that speaks to the user about what was given."""


class InputError(ValueError):
    """Input that cannot be used: one sentence naming what is wrong, where, and what to do.

    The command line prints the sentence and ends with exit code 2.
    """
