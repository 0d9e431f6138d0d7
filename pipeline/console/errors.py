"""The errors that a user is meant to read: one line that says what is wrong, where, and what to do next."""


class UserError(Exception):
    """Something the user can mend. The command line prints it as one line, without a traceback, and exits with 1."""

    exit_code = 1


class UsageError(UserError):
    """The command itself is wrong (an unknown name, option or value). The command line exits with 2."""

    exit_code = 2


class StoreError(UserError):
    """A remote store does not answer, or refuses. What was written before stays there."""
