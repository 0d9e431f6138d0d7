"""Local paths that users give or files contain: one check for all that are read or written.

A path may be empty, contain a zero byte, or name something that is not what a command expects: a folder, a named pipe
on which reading waits for ever, a socket, a device without an end, a symbolic link that leads to itself. The functions
here find out before anything is opened, and say so in one line."""

import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

from lgd.pipeline.console.errors import UsageError, UserError

_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISREG, "a file"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_REASONS: Mapping[int, str] = MappingProxyType(
    {
        errno.EACCES: "permission denied: change its permissions, or those of the folders above it",
        errno.EPERM: "permission denied: change its permissions, or those of the folders above it",
        errno.ELOOP: "a symbolic link leads to itself: correct the link",
        errno.ENOTDIR: "a part of the path is a file, not a folder: correct the path",
        errno.EISDIR: "it is a folder, not a file: give the name of a file",
        errno.ENAMETOOLONG: "the name is too long: correct the path",
        errno.EIO: "the disk reports an error: check the disk, or copy the file from somewhere else",
        errno.ESTALE: "it was replaced on the file server: rerun the same command",
    }
)


def check_path(path: str) -> str:
    """Return a local path or an address, with `~` at the start as the home folder.

    Raises UsageError for an empty one and for one with a zero byte."""
    if not path:
        raise UsageError("a path is empty: give the name of a file or folder (. is the current folder)")
    if "\0" in path:
        raise UsageError(f"{path!r} contains a zero byte and cannot be the name of a file or folder")
    return os.path.expanduser(path)


def check_file(path: str, shown: str) -> None:
    """Raise UserError for a local path that exists and is not a regular file, or cannot be accessed.

    A missing file is not an error here: what reads it says what to do. shown: the path in the message."""
    with path_errors(shown):
        try:
            found = _kind(os.stat(path).st_mode)
        except FileNotFoundError:
            if os.path.islink(path):
                raise UserError(f"{shown} is a symbolic link to {os.readlink(path)}, which does not exist") from None
            return
    if found != "a file":
        raise UserError(f"{shown} is {found}, not a file: give the name of a file")


def check_target(path: str, shown: str) -> None:
    """Raise UserError for a local path that exists and that a file must not replace: a pipe, a socket, a device."""
    try:
        found = _kind(os.lstat(path).st_mode)
    except OSError:
        return  # missing; other errors appear when the file is written
    if found not in ("a file", "a folder", "a symbolic link"):  # a folder has a message of its own
        raise UserError(f"cannot write {shown}: it is {found}, not a file: choose a different name")


def check_folder(path: str, shown: str) -> None:
    """Raise UserError for a local path that exists and is not a folder, or cannot be accessed."""
    with path_errors(shown):
        try:
            found = _kind(os.stat(path).st_mode)
        except FileNotFoundError:
            return
    if found != "a folder":
        raise UserError(f"{shown} is {found}, not a folder: give the name of a folder")


@contextmanager
def path_errors(shown: str) -> Iterator[None]:
    """Turn the errors of a path that a user can correct into a UserError of one line; FileNotFoundError is unchanged.

    shown: the path in the message."""
    try:
        yield
    except OSError as error:
        if (reason := _REASONS.get(error.errno or 0)) is not None:
            raise UserError(f"cannot access {shown}: {reason}") from error
        raise


def _kind(mode: int) -> str:
    return next((name for is_kind, name in _KINDS if is_kind(mode)), "a symbolic link")
