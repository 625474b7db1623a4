"""The exceptions of the package: the input is wrong, or a signal stopped the run."""

import signal


class InputError(ValueError):
    """Bad input from a user: a file, a folder, a tensor or an option.

    The message is one sentence or two: what was expected, what was found, in which file, and what to do. The
    command line prints it without a traceback and exits with status 2.
    """


class Interrupted(BaseException):
    """A signal asks the process to stop. No error: nothing that handles errors should take it for one.

    Args:
        signum: SIGINT or SIGTERM.
        advice: How to continue, a sentence.
    """

    def __init__(self, signum: int, advice: str = "Run the same command again to continue.") -> None:
        super().__init__(signum, advice)
        self.signum = signum
        self.advice = advice

    def __str__(self) -> str:
        """Say what happened and how to continue."""
        return f"{'interrupted' if self.signum == signal.SIGINT else 'terminated'}. {self.advice}"

    @property
    def status(self) -> int:
        """Exit status that shells expect: 130 after SIGINT, 143 after SIGTERM."""
        return 128 + self.signum
