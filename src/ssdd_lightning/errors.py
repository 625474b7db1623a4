"""The one exception that means: your input is wrong, and here is what to do about it."""


class InputError(ValueError):
    """Bad input from a user: a file, a folder, a tensor or an option.

    The message is one sentence or two: what was expected, what was found, in which file, and what to do. The
    command line prints it without a traceback and exits with status 2.
    """
