"""Who holds a lock: the command, its user, its machine and its process, and whether that process still runs."""

import getpass
import json
import os
import platform
import time
import uuid
from dataclasses import asdict, dataclass, fields
from pathlib import Path

UNKNOWN = "unknown"
PROC = Path("/proc")
BOOT_ID = PROC / "sys/kernel/random/boot_id"


@dataclass(frozen=True)
class LockOwner:
    """Content of a lock file. Fields that this version does not know are ignored, and missing ones have defaults."""

    token: str
    """Unique name of this lock; part of the names of its file and of the temporary files of its holder."""
    command: str = UNKNOWN
    """Command line of the holder, such as `lgd train`."""
    work: str = ""
    """Commands with the same work may hold the lock together; empty for a command that holds it alone."""
    user: str = UNKNOWN
    """Name of the user."""
    host: str = UNKNOWN
    """Name of the machine, for people."""
    machine: str = ""
    """Identity of the machine since its last start, and of its process ids: containers have their own."""
    pid: int = 0
    """Process id."""
    started: int = 0
    """Start of the process, in clock ticks since the start of the machine: process ids are used again."""
    since: str = UNKNOWN
    """Local time of the holder when it asked for the lock, for people: clocks of machines differ."""
    ticket: int | None = None
    """Place in the order of the commands that ask for the lock; None before it is chosen."""
    replaces: tuple[str, ...] = ()
    """Tokens of the locks that this one took over from commands that did not respond."""

    @classmethod
    def this_process(cls, command: str, work: str) -> "LockOwner":
        """Return the owner of a new lock of this process."""
        try:
            user = getpass.getuser()
        except (KeyError, OSError):  # a container without a name for the user id
            user = str(os.getuid())
        stat = _process_stat(os.getpid())
        return cls(
            uuid.uuid4().hex,
            command,
            work,
            user,
            platform.node(),
            _this_machine(),
            os.getpid(),
            stat[1] if stat else 0,
            time.strftime("%Y-%m-%d %H:%M:%S %z"),
        )

    @classmethod
    def from_json(cls, token: str, content: bytes) -> "LockOwner":
        """Return the owner that the lock file of `token` describes; one that is unknown if the file is damaged."""
        try:
            document = json.loads(content)
            known = {field.name: document[field.name] for field in fields(cls) if field.name in document}
            return cls(**{**known, "token": token, "replaces": tuple(known.get("replaces", ()))})
        except (ValueError, TypeError):
            return cls(token)

    def to_json(self) -> bytes:
        """Return the content of the lock file."""
        return json.dumps(asdict(self), indent=2).encode() + b"\n"

    def describe(self) -> str:
        """Return who it is in words."""
        return f"`{self.command}` of {self.user} on {self.host} (process {self.pid}, since {self.since})"

    @property
    def is_local(self) -> bool:
        """Whether its process id is one of this machine's, as this process sees them."""
        return bool(self.machine) and self.machine == _this_machine()

    def is_alive(self) -> bool | None:
        """Return whether its process runs; None if this process cannot find that out."""
        if not self.is_local:
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass  # a process of another user
        stat = _process_stat(self.pid)
        if stat is None:  # it has ended in the meantime, or processes of other users are hidden
            return None
        return stat[1] == self.started and stat[0] not in "ZX"

    def is_suspended(self) -> bool:
        """Return whether its process is stopped, for example by Ctrl-Z."""
        stat = _process_stat(self.pid) if self.is_local else None
        return stat is not None and stat[0] in "Tt"


def _this_machine() -> str:
    """Return an identity of this machine since its last start and of its namespace of process ids; "" if unknown."""
    try:
        return f"{platform.node()} {BOOT_ID.read_text().strip()} {os.readlink(PROC / 'self/ns/pid')}"
    except OSError:
        return ""


def _process_stat(pid: int) -> tuple[str, int] | None:
    """Return the state of a process, one letter, and its start in clock ticks; None if it cannot be read."""
    try:
        text = (PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    words = text.rpartition(")")[2].split()  # its name, in parentheses before, may contain anything
    return words[0], int(words[19])
