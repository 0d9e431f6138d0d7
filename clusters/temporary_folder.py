"""The folder of an embedded Ray cluster's logs and sockets."""

import atexit
import contextlib
import os
import tempfile

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.console.progress import say

SOCKET_PATH_BYTES = 107  # maximum length of the path of a Unix socket
# The longest one in Ray's folder: time, microseconds and process id are the name of the session.
LONGEST_SOCKET = "session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")


def ray_temporary_folder() -> str:
    """Return the folder for Ray's files: `ray` in RAY_TMPDIR, TMPDIR or /tmp, created if it is missing.

    If its path is too long for a socket or is not plain ASCII, return a short path of the same folder instead: a
    symbolic link, which is removed when this process ends. Sets TMPDIR, for this process and its children, to a folder
    that all of them can use.
    Raises UserError if there is no folder that can be written to."""
    folder = os.path.join(_parent(), "ray")
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot create {folder} ({error.strerror}): set TMPDIR or RAY_TMPDIR to a different folder"
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):  # of another user
        folder = tempfile.mkdtemp(prefix="ray-", dir=os.path.dirname(folder))
    fits = len(os.fsencode(os.path.join(folder, LONGEST_SOCKET))) <= SOCKET_PATH_BYTES
    return folder if fits and folder.isascii() and " " not in folder else _short_path(folder)


def _parent() -> str:
    """Return the folder for temporary files. A TMPDIR that is relative or cannot be used is replaced."""
    try:
        usable = tempfile.gettempdir()
    except FileNotFoundError as error:
        raise UserError(f"no folder for temporary files ({error.strerror}): set TMPDIR to one") from error
    given = os.environ.get("TMPDIR")
    if given and given != usable:
        if os.path.abspath(given) != usable:
            say(f"TMPDIR is {given}, which is not a folder that can be written to: {usable} is used")
        os.environ["TMPDIR"] = usable  # Ray's processes do not run in the folder of this one
    return os.path.abspath(os.environ.get("RAY_TMPDIR") or usable)


def _short_path(folder: str) -> str:
    """Return the path of a symbolic link to a folder, which is removed when this process ends."""
    for parent in SHORT_FOLDERS:
        with contextlib.suppress(OSError):
            link_folder = tempfile.mkdtemp(prefix="lgd-ray-", dir=parent)
            link = os.path.join(link_folder, "ray")
            os.symlink(folder, link)
            atexit.register(_remove_link, link, folder)
            return link
    raise UserError(
        f"the path {folder} is too long for Ray's sockets, and no link to it can be created in "
        f"{', '.join(SHORT_FOLDERS)}: set TMPDIR to a folder with a short path"
    )


def _remove_link(link: str, folder: str) -> None:
    """Remove the link; Ray's own link to the newest session, which leads through it, gets a relative path."""
    newest = os.path.join(folder, "session_latest")
    with contextlib.suppress(OSError):  # already removed, or a session that has started since
        session = os.path.basename(os.readlink(newest)) if os.readlink(newest).startswith(f"{link}/") else ""
        if session:
            os.unlink(newest)
            os.symlink(session, newest)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(link)
        os.rmdir(os.path.dirname(link))
