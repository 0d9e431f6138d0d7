"""Locks of folders: one command at a time writes to a run, a dataset or the score chunks of an evaluation.

FOLDER/.lock-<token>     one file per command that holds or asks for the lock; see `LockOwner`

Locks work in local folders, on network file systems and in object stores alike: they need no locks of the file system
and no conditional requests, only that a file that was written is seen by later listings. Who comes first is decided by
Lamport's bakery algorithm ("A new solution of Dijkstra's concurrent programming problem", 1974): each command writes a
file without a ticket, takes a ticket above all that it sees, and gives way to a command with a lower ticket.

The holder renews its file every RENEW_S seconds. The lock of a command that has died is taken over: at once if its
process was on this machine, otherwise if its file did not change for LIMIT_S seconds of this machine's clock (or of the
store's), since the clocks of machines differ. A command that was suspended for that long finds out before its next
change of the folder, see `LockedStorage`.
"""

import contextlib
import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from lgd.pipeline.console.errors import StoreError, UserError
from lgd.pipeline.console.progress import say
from lgd.pipeline.storage.lock_owner import LockOwner
from lgd.pipeline.storage.storage import TEMPORARY, Storage

LOCK = ".lock-"  # prefix of the lock files
RENEW_S = 10.0
LIMIT_S = 60.0  # without a renewal: the holder is taken for dead
POLL_S = 1.0  # between two looks at the lock of another machine
CHOOSING_S = 0.02  # between two looks at a command of this machine that is taking its ticket


class LockLost(UserError):
    """Another command took over the lock of this one, which must not write any more."""


class LockedStorage(Storage):
    """A folder whose lock this command holds, in any of its processes, on any machine.

    Every write and deletion first checks that the lock is still held, and raises LockLost otherwise. Its temporary
    files have the token of the lock in their names."""

    def __init__(self, root: str, token: str):
        super().__init__(root)
        self.token = token
        self.temporary_prefix = f"{TEMPORARY}{token}-"

    def __reduce__(self) -> tuple[type, tuple[str, ...]]:
        return LockedStorage, (self.address, self.token)

    def check_lock(self) -> None:
        """Raise LockLost unless the lock is still held."""
        tokens = lock_tokens(self)
        if self.token not in tokens and self.local:
            # On a network file system a listing may be old; a new file in the folder makes the next one new.
            with contextlib.suppress(OSError):
                probe = self.path(f"{self.temporary_prefix}probe")
                os.close(os.open(probe, os.O_CREAT | os.O_WRONLY, 0o644))
                os.unlink(probe)
            tokens = lock_tokens(self)
        for other in tokens - {self.token}:
            owner = read_owner(self, other)
            if owner and self.token in owner.replaces:
                raise LockLost(
                    f"{self.display()} was taken over by {owner.describe()}, because this command did not respond for "
                    f"{LIMIT_S:.0f} s: it stops and writes nothing more"
                )
        if self.token not in tokens:
            raise LockLost(
                f"{self.display()}: the lock of this command is missing on {platform.node()}: it was removed and "
                "another command may have written there, or the folder is not the same on every node; this command "
                "stops and writes nothing more"
            )

    def clean(self, folder: str = "") -> None:
        """Remove the temporary files of killed processes from a folder, and those of this command; not those of other
        commands that hold the lock together with this one."""
        others = tuple(f"{TEMPORARY}{token}-" for token in lock_tokens(self) - {self.token})
        for name in self.names(folder):
            # A lock that is being written is of a command that is not among the others yet.
            if name.startswith(TEMPORARY) and not name.startswith(others) and f"-{LOCK}" not in name:
                with contextlib.suppress(FileNotFoundError):  # removed by one of them
                    self.delete(f"{folder}/{name}" if folder else name)


@contextmanager
def locked(storage: Storage, command: str, work: str = "") -> Iterator[LockedStorage]:
    """Hold the lock of a folder until the block ends; yield the folder, for all changes of it.

    The folder is created if it is missing. command: name of this command, for messages of others. work: commands with
    the same one hold the lock together; an empty one holds it alone.
    Waits up to LIMIT_S seconds for a sign of life of a holder on another machine, and takes over if there is none.
    Raises UserError, with the holder, if another command holds the lock."""
    storage.make_folder()
    lock = _Lock(storage, LockOwner.this_process(command, work))
    try:
        lock.acquire()
        yield lock.storage
    finally:
        lock.release()


def lock_tokens(storage: Storage) -> set[str]:
    """Return the tokens of the lock files of a folder."""
    return {name.removeprefix(LOCK) for name in storage.names() if name.startswith(LOCK)}


def read_owner(storage: Storage, token: str) -> LockOwner | None:
    """Return the owner of a lock; None if it does not exist any more."""
    try:
        return LockOwner.from_json(token, storage.read(LOCK + token))
    except FileNotFoundError:
        return None


class _Lock:
    """The lock of this command in a folder: its file, and the thread that renews it."""

    def __init__(self, storage: Storage, owner: LockOwner):
        self.storage = LockedStorage(storage.address, owner.token)
        self._plain, self._owner = storage, owner
        self._seen: dict[str, tuple[str, float]] = {}  # token of another lock -> its stamp, when it was first seen
        self._acquired = False  # until then, the thread does not remove locks that `acquire` judges
        self._stop, self._writing = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._renew_until_stopped, name="lock", daemon=True)

    def acquire(self) -> None:
        """Take the lock. Raises UserError, with the holder, if another command has it."""
        try:
            self._write()
        except FileNotFoundError:  # a command that has just finished has removed its empty folder
            self._plain.make_folder()
            self._write()
        self._thread.start()
        tickets = [other.ticket or 0 for other in self._others()]
        self._owner = replace(self._owner, ticket=1 + max(tickets, default=0))
        self._write()
        others = self._others()
        conflicting = [other for other in others if not self._owner.work or other.work != self._owner.work]
        dead = tuple(other.token for other in conflicting if not self._gives_way(other))
        if dead:
            self._owner = replace(self._owner, replaces=dead)
            self._write()  # before the deletions, so that a holder that was only suspended finds out
            for token in dead:
                self._plain.delete(LOCK + token, missing_ok=True)
        self._remove_dead()
        self._acquired = True
        for other in others:
            if other not in conflicting and other.is_alive() is not False:
                say(f"{self._plain.display()}: sharing the work with {other.describe()}")

    def release(self) -> None:
        """Remove the lock. If that fails, others take it over after LIMIT_S seconds."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        with contextlib.suppress(OSError, StoreError):
            self._plain.delete(LOCK + self._owner.token, missing_ok=True)

    def _write(self) -> None:
        with self._writing:  # of both threads one after the other, so that the newer content stays
            self._plain.write(LOCK + self._owner.token, self._owner.to_json())

    def _others(self) -> list[LockOwner]:
        tokens = sorted(lock_tokens(self._plain) - {self._owner.token})
        return [owner for owner in (read_owner(self._plain, token) for token in tokens) if owner]

    def _gives_way(self, other: LockOwner) -> bool:
        """Return True if another command has ended or came later than this one, False if it is dead.

        Raises UserError if it is alive and came earlier."""
        announced, responded = False, False
        while (now := read_owner(self._plain, other.token)) is not None:
            if now.ticket is not None and (now.ticket, now.token) > (self._owner.ticket, self._owner.token):
                return True
            alive = now.is_alive()
            if alive is None:
                silent_s, changed = self._silence(other.token)
                responded |= changed
                alive = True if responded else False if silent_s >= LIMIT_S else None
            if alive is False:
                if not now.is_local:
                    say(f"{self._plain.display()}: taking over from {now.describe()}, which does not respond")
                return False
            if alive and now.ticket is not None:
                raise UserError(f"{self._plain.display()} is in use by {_advice(now)}")
            if alive is None and not announced:
                announced = True
                say(
                    f"{self._plain.display()} is locked by {now.describe()}, on a machine that cannot be asked: taking "
                    f"over in {LIMIT_S - silent_s:.0f} s unless it responds"
                )
            time.sleep(CHOOSING_S if alive else POLL_S)
        return True

    def _silence(self, token: str) -> tuple[float, bool]:
        """Return for how many seconds a lock has not been renewed, and whether it was since it was first seen."""
        try:
            self._plain.read(LOCK + token)  # opening a file makes its stamp new on a network file system
            stamp = self._plain.stamp(LOCK + token)
        except FileNotFoundError:
            return 0.0, False
        now = time.monotonic()
        if token not in self._seen:
            # The times of an object store are all by its own clock.
            silent_s = 0.0 if self._plain.local else self._age_s(token)
            self._seen[token] = stamp, now - silent_s
            return silent_s, False
        first, since = self._seen[token]
        if stamp != first:
            self._seen[token] = stamp, now
            return 0.0, True
        return now - since, False

    def _age_s(self, token: str) -> float:
        """Return by how many seconds a lock was renewed before this command's own."""
        own, other = (self._plain.modified_s(LOCK + name) for name in (self._owner.token, token))
        return max(own - other, 0.0)

    def _renew_until_stopped(self) -> None:
        while not self._stop.wait(RENEW_S):
            # A failed renewal is repeated after RENEW_S. If the lock was lost, `check_lock` finds out.
            with contextlib.suppress(OSError, StoreError):
                if not self._renew():
                    return
                if self._acquired:
                    self._remove_dead()

    def _remove_dead(self) -> None:
        """Remove the locks of dead commands that do not conflict with this one."""
        for other in self._others():
            alive = other.is_alive()
            if alive is False or (alive is None and self._silence(other.token)[0] >= LIMIT_S):
                self._plain.delete(LOCK + other.token, missing_ok=True)

    def _renew(self) -> bool:
        """Change the time of the lock file; return whether it still exists."""
        name = LOCK + self._owner.token
        if self._plain.local:
            try:
                os.utime(self._plain.path(name))
            except FileNotFoundError:
                return False
            return True
        began = time.monotonic()
        if not self._plain.exists(name):
            return False
        self._write()
        if time.monotonic() - began > LIMIT_S:  # suspended in between: it may have been taken over before the write
            self._plain.delete(name, missing_ok=True)
            return False
        return True


def _advice(owner: LockOwner) -> str:
    """Return the holder, and what a user can do."""
    if owner.is_suspended():
        return (
            f"{owner.describe()}, which is suspended: continue it with `kill -CONT {owner.pid}`, or end it with "
            f"`kill -KILL {owner.pid}`"
        )
    if owner.is_local:
        return f"{owner.describe()}: wait until it ends, or end it with `kill {owner.pid}`"
    return (
        f"{owner.describe()}: wait until it ends, or end it there; if it was killed, rerun: its lock is taken over "
        f"{LIMIT_S:.0f} s after its last renewal"
    )
