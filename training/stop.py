"""A last checkpoint when `lgd train` is stopped by a signal: the driver asks the workers for it and waits.

They share only the folder of the run. The names of these files contain the token of the lock of the run, so that each
launch has its own and the next command removes those of a killed one:

RUN/.tmp-<token>-training     rank 0 trains and looks for requests
RUN/.tmp-<token>-stop         the driver asks for a checkpoint
RUN/.tmp-<token>-stopped      rank 0 has written it: its step, as text
"""

import contextlib
import math
import re
import threading
import time
from dataclasses import dataclass

from lgd.pipeline.console.errors import StoreError, UsageError
from lgd.pipeline.console.progress import say
from lgd.pipeline.storage.storage import Storage
from lgd.training.run import CHECKPOINTS

POLL_S, REMOTE_POLL_S = 0.2, 3.0  # of a local folder, and of one in an object store
_TRAINING, _STOP, _STOPPED = "training", "stop", "stopped"


@dataclass(frozen=True)
class StopOptions:
    """How a training ends when it is stopped by Ctrl-C, SIGTERM or SIGHUP."""

    grace_s: float = 20.0
    """Seconds in which a last checkpoint is written if a signal stops the training (Ctrl-C, SIGTERM). Slurm and
    Kubernetes kill it 30 s after SIGTERM by default. 0: no last checkpoint."""

    def __post_init__(self) -> None:
        if not (self.grace_s >= 0 and math.isfinite(self.grace_s)):
            raise UsageError(f"--grace-s must be 0 or more seconds, not {self.grace_s:g}")


def last_checkpoint(storage: Storage, grace_s: float) -> str:
    """Let the workers write a checkpoint, for at most `grace_s` seconds. Return in words how the run is resumed.

    storage: of the run, with the lock of this command."""
    resume = "rerun the same command to resume"
    if not storage.exists(_name(storage, _TRAINING)):  # the workers have not trained a step yet
        return resume
    if grace_s:
        say(f"stopping: writing a checkpoint, for up to {grace_s:g} s; another signal ends the command at once")
        if (step := _request(storage, grace_s)) is not None:
            return f"checkpoint of step {step} written: {resume} from there"
    steps = [re.fullmatch(r"step-(\d{8})\.pt", name) for name in storage.names(CHECKPOINTS)]
    newest = max((int(step[1]) for step in steps if step), default=None)
    place = "from the start" if newest is None else f"from the last checkpoint, of step {newest}"
    reason = f"no checkpoint within {grace_s:g} s (--grace-s): " if grace_s else ""
    return f"{reason}{resume} {place}"


def _request(storage: Storage, grace_s: float) -> int | None:
    """Ask for a checkpoint and return its step; None if there is no answer in time."""
    deadline = time.monotonic() + grace_s
    stopped = _name(storage, _STOPPED)
    storage.write(_name(storage, _STOP), b"")
    while time.monotonic() < deadline:
        if storage.exists(stopped):
            return int(storage.read(stopped))
        time.sleep(POLL_S)
    return None


class StopRequest:
    """What rank 0 knows of a request of the driver: a thread looks for it until `close`."""

    def __init__(self, storage: Storage):
        self._storage = storage
        self._storage.write(_name(storage, _TRAINING), b"")
        self._received, self._closed = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._look, name="stop", daemon=True)
        self._thread.start()

    @property
    def received(self) -> bool:
        """Whether the driver has asked for a checkpoint."""
        return self._received.is_set()

    def answer(self, step: int) -> None:
        """Tell the driver that the checkpoint of this step is written."""
        self._storage.write(_name(self._storage, _STOPPED), str(step).encode())

    def close(self) -> None:
        """End the thread, and remove the files."""
        self._closed.set()
        self._thread.join()
        self._storage.delete(_name(self._storage, _TRAINING), missing_ok=True)

    def _look(self) -> None:
        while not self._closed.wait(POLL_S if self._storage.local else REMOTE_POLL_S):
            with contextlib.suppress(OSError, StoreError):  # it is asked again
                if self._storage.exists(_name(self._storage, _STOP)):
                    self._received.set()
                    return


def _name(storage: Storage, kind: str) -> str:
    return f"{storage.temporary_prefix}{kind}"
