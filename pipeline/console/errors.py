"""Errors for the user: one line that says what is wrong, where, and what to do next."""


class UserError(Exception):
    """Something that the user can fix. The command line prints it as one line, without a traceback, and exits with
    1."""

    exit_code = 1


class UsageError(UserError):
    """The command line is wrong: an unknown name, option or value. The command line exits with 2."""

    exit_code = 2


class NodeError(UserError):
    """A node of the cluster failed, and not the input: a task that is repeated may succeed, also on another node."""


class StoreError(UserError):
    """An object store is unreachable, or rejects a request. Files that were written before are kept."""
