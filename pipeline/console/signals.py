"""Signals that end a command: Ctrl-C (SIGINT), SIGTERM (Slurm, Kubernetes, systemd, `timeout`, `kill`) and SIGHUP (the
terminal was closed).

`watch` blocks these signals in all threads; a thread of its own waits for them. Handlers would not be enough: Ray
replaces them, in Python and in C++, where its handler prints stack traces and aborts the process; and Python calls them
between two instructions of the main thread only, which may be in C code for minutes.

The first signal
  before the command begins: ends the process, which has nothing to clean up
  while it runs (`interruptible`): raises KeyboardInterrupt in the main thread; in a block of `deferred`, when it ends
  while the process ends (`end`): only decides the exit code
A second signal, a second or more after the first, ends the process at once."""

import atexit
import contextlib
import os
import shutil
import signal
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
WAKE = signal.SIGRTMIN  # sent to the main thread: interrupts what it waits for, then its handler raises
# `timeout` and Slurm send a signal to a process and to its group: it arrives twice.
SAME_S = 1.0
COMMAND_ID = "LGD_COMMAND_ID"  # variable in the environment of the child processes, by which they are found
RESUME = "rerun the same command to resume"

_BEFORE, _RUNNING, _ENDING = "before", "running", "ending"


class _State:
    """What the signals do now. Changed under `lock` by the main thread and the thread that waits for signals."""

    lock = threading.Lock()
    watching = False
    phase = _BEFORE
    deferring = 0  # depth of the blocks of `deferred`
    received: int | None = None
    received_at = 0.0
    advice = RESUME
    late = False  # whether it was received when the command had ended
    temporary: set[str] = set()  # noqa: RUF012 (there is one state per process)


def watch() -> None:
    """Handle the signals in this process, until it ends. Called first, by the main thread, before others start.

    Signals that the parent process has set to be ignored, as `nohup` does, stay so. Child processes that start with a
    `preexec_fn`, as those of Ray, do not inherit that the signals are blocked, and get process groups of their own:
    Ctrl-C and `timeout` send signals to the whole group, which would end them before a last checkpoint is written.
    Other child processes have the signals blocked. This process kills all of them when it is stopped."""
    chosen = {number for number in ENDING_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN}
    signal.signal(WAKE, lambda number, frame: check_interrupted())
    signal.pthread_sigmask(signal.SIG_BLOCK, chosen)
    os.register_at_fork(after_in_child=_separate_child)
    os.environ[COMMAND_ID] = f"{os.environ.get(COMMAND_ID, '')} {uuid.uuid4().hex}".strip()
    _State.watching = True
    threading.Thread(target=_wait_for_signals, args=(chosen,), name="signals", daemon=True).start()


def _separate_child() -> None:
    """Give a child process a process group of its own and signals like those of any process. Runs between `fork` and
    `exec`."""
    os.setpgid(0, 0)
    for number in ENDING_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_IGN)  # discards one that was sent to the old group in the meantime
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING_SIGNALS)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let the first signal raise KeyboardInterrupt in the block, or at its end. The process ends after the block."""
    _set_phase(_RUNNING)
    try:
        check_interrupted()
        yield
        check_interrupted()
    finally:
        _set_phase(_ENDING)


@contextmanager
def deferred() -> Iterator[None]:
    """Let a signal that arrives in the block raise KeyboardInterrupt when the block ends, instead of an error of the
    block: what it starts, such as processes, is then known and can be ended."""
    with _State.lock:
        _State.deferring += 1
    try:
        yield
    finally:
        with _State.lock:
            _State.deferring -= 1
        check_interrupted()


def check_interrupted() -> None:
    """Raise KeyboardInterrupt if a signal has arrived, in the main thread of a running command. Loops call this, since
    libraries may drop the exception that was raised first."""
    if (
        _State.received is not None
        and _State.phase == _RUNNING
        and not _State.deferring
        and threading.current_thread() is threading.main_thread()
    ):
        raise KeyboardInterrupt


def interrupted() -> bool:
    """Return whether a signal has arrived."""
    return _State.received is not None


def advise(advice: str) -> None:
    """Set what the last line of an interrupted command says after "stopped; "."""
    _State.advice = advice


def last_line() -> str:
    """Return the last line of an interrupted command: what stopped it, and how it is resumed."""
    number = _State.received or signal.SIGINT
    by = "" if number == signal.SIGINT else f" by {signal.Signals(number).name}"
    return f"lgd: stopped{by}; {_State.advice}"


def exit_code() -> int:
    """Return the exit code of an interrupted command, as shells have it: 128 + number of the signal."""
    return 128 + (_State.received or signal.SIGINT)


def remove_if_killed(folder: str) -> None:
    """Remove a temporary folder if a signal ends the process before the one that created it does."""
    _State.temporary.add(folder)


def kill_children() -> None:
    """Kill all processes that this one has started, directly or not, and that still run."""
    for _ in range(20):  # until none has started another one in the meantime
        children = _children()
        for pid in children:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if not children:
            return
        time.sleep(0.02)


def end() -> None:
    """Do what is left to do before the process ends: call the functions that are registered with `atexit`, so that a
    signal cannot interrupt them. If a signal has arrived, also kill the child processes and end this one."""
    if not _State.watching:
        return
    _set_phase(_ENDING)
    atexit._run_exitfuncs()
    if _State.received is not None:
        if _State.late:
            _write(f"lgd: stopped by {signal.Signals(_State.received).name} after the end of the command")
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # its reader has ended
                stream.flush()
        _exit()
    for number in ENDING_SIGNALS:  # from here on there is nothing to clean up
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING_SIGNALS)


def _set_phase(phase: str) -> None:
    with _State.lock:
        _State.phase = phase


def _wait_for_signals(chosen: set[signal.Signals]) -> None:
    main = threading.main_thread().ident
    assert main is not None
    while True:
        number = signal.sigwait(chosen)
        with _State.lock:
            first = _State.received is None
            if first:
                _State.received, _State.received_at = number, time.monotonic()
                _State.late = _State.phase == _ENDING
            if first and _State.phase == _RUNNING and not _State.deferring:
                signal.pthread_kill(main, WAKE)
            at_once = _State.phase == _BEFORE or (not first and time.monotonic() - _State.received_at > SAME_S)
        if at_once:
            line = last_line()
            _write(line if first else line.replace("stopped", "stopped at once", 1))
            _exit()


def _write(line: str) -> None:
    """Write a line to stderr, also while other threads write to it."""
    with contextlib.suppress(OSError):  # the terminal is closed
        os.write(2, f"{line}\n".encode())


def _exit() -> None:
    """Kill the child processes, remove temporary folders and end this process, whatever its threads do."""
    kill_children()
    for folder in [*_State.temporary]:
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(exit_code())


def _children() -> list[int]:
    """Return the living processes whose environment has the id of this command."""
    own = os.environ.get(COMMAND_ID)
    if own is None or not _State.watching:
        return []
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            with contextlib.suppress(OSError):  # it has ended, or belongs to another user
                if f"\0{COMMAND_ID}={own}".encode() in b"\0" + (folder / "environ").read_bytes():
                    found.append(int(folder.name))
    return found
