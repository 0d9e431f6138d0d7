"""Signals that end a command, at every moment of its life: child processes that get signals at markers."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lgd.pipeline.console import signals

# A command line like that of `lgd`. The test sends the signal when "MARK" appears on stderr; the process then runs
# until the test stops waiting, unless the signal ends it.
PROGRAM = """
import atexit, contextlib, os, signal, subprocess, sys, tempfile, threading, time
from pathlib import Path
from lgd.pipeline.console import signals
moment = sys.argv[1]
signals.watch()
try:
    from dataclasses import dataclass
    from lgd.pipeline.console.command_line import CommandResult, run_and_print

    def mark(seconds=60.0):
        os.write(2, b"MARK\\n")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.02)

    def at_exit():
        os.write(2, b"at exit\\n")
        if moment == "exit":
            mark(0.5)
        if moment == "hang":
            mark()

    @dataclass(frozen=True)
    class Done(CommandResult):
        def lines(self):
            if moment == "result":
                mark()
            return ["done"]

    def command():
        atexit.register(at_exit)
        if moment in ("command", "hang"):
            with tempfile.TemporaryDirectory(dir=os.environ["FOLDER"]) as folder:
                signals.remove_if_killed(folder)
                try:
                    mark()
                finally:
                    os.write(2, b"cleaned\\n")
        if moment == "stuck":  # cleaning up does not end
            folder = tempfile.mkdtemp(dir=os.environ["FOLDER"])
            signals.remove_if_killed(folder)
            try:
                mark()
            finally:
                os.write(2, b"STUCK\\n")
                threading.Event().wait(60)
        if moment == "thread":  # the main thread waits for a lock
            os.write(2, b"MARK\\n")
            threading.Event().wait()
        if moment == "dropped":  # libraries may drop the exception
            with contextlib.suppress(KeyboardInterrupt):
                mark()
        if moment == "replaced":  # as Ray does
            signal.signal(signal.SIGTERM, lambda *_: os.abort())
            signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
            mark()
        if moment == "deferred":
            with signals.deferred():
                mark(0.5)
                os.write(2, b"started\\n")
        if moment == "children":
            own = dict(preexec_fn=lambda: None)  # with the same signals as any process
            code = "import subprocess, time; subprocess.Popen(['sleep', '60'], start_new_session=True); time.sleep(60)"
            for options in ({}, own):
                child = subprocess.Popen([sys.executable, "-c", code], **options)
            Path(os.environ["FOLDER"], "pid").write_text(str(child.pid))
            mark()
        return Done()

    if moment == "import":
        mark()
    run_and_print([], command)
finally:
    signals.end()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for temporary files of the program, which are all removed, and processes that all end."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    yield folder
    assert [path.name for path in folder.iterdir() if path.name != "pid"] == []
    assert living(folder) == []


def living(folder: Path) -> list[bytes]:
    """The command lines of the processes that were started with this folder."""
    found = []
    for path in Path("/proc").iterdir():
        try:
            if path.name.isdigit() and f"FOLDER={folder}".encode() in (path / "environ").read_bytes().split(b"\0"):
                found.append((path / "cmdline").read_bytes())
        except OSError:  # it has ended
            pass
    return found


def start(folder: Path, moment: str) -> subprocess.Popen[bytes]:
    def default_signals() -> None:  # tests may run in a process that ignores them, such as a job of a shell script
        for number in signals.ENDING_SIGNALS:
            signal.signal(number, signal.SIG_DFL)

    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, moment],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "FOLDER": str(folder)},
        preexec_fn=default_signals,
        start_new_session=True,
    )
    wait_for_line(process, b"MARK\n")
    return process


def wait_for_line(process: subprocess.Popen[bytes], expected: bytes) -> None:
    assert process.stderr
    while (line := process.stderr.readline()) != expected:
        assert line, "it has ended"


def ended(process: subprocess.Popen[bytes]) -> tuple[int, str, str]:
    """Wait for the end: exit code, stdout, stderr after the mark."""
    out, err = process.communicate(timeout=30)
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize(
    ("moment", "number", "out", "err"),
    [
        ("import", signal.SIGINT, "", "lgd: stopped; rerun the same command to resume\n"),
        ("import", signal.SIGTERM, "", "lgd: stopped by SIGTERM; rerun the same command to resume\n"),
        ("command", signal.SIGINT, "", "cleaned\nlgd: stopped; rerun the same command to resume\nat exit\n"),
        (
            "command",
            signal.SIGTERM,
            "",
            "cleaned\nlgd: stopped by SIGTERM; rerun the same command to resume\nat exit\n",
        ),
        ("thread", signal.SIGHUP, "", "lgd: stopped by SIGHUP; rerun the same command to resume\nat exit\n"),
        ("thread", signal.SIGTERM, "", "lgd: stopped by SIGTERM; rerun the same command to resume\nat exit\n"),
        ("dropped", signal.SIGTERM, "done\n", "lgd: stopped by SIGTERM; rerun the same command to resume\nat exit\n"),
        ("replaced", signal.SIGTERM, "", "lgd: stopped by SIGTERM; rerun the same command to resume\nat exit\n"),
        ("replaced", signal.SIGINT, "", "lgd: stopped; rerun the same command to resume\nat exit\n"),
        ("deferred", signal.SIGINT, "", "started\nlgd: stopped; rerun the same command to resume\nat exit\n"),
        ("children", signal.SIGTERM, "", "lgd: stopped by SIGTERM; rerun the same command to resume\nat exit\n"),
        ("result", signal.SIGINT, "", "lgd: stopped; rerun the same command to resume\nat exit\n"),
        ("exit", signal.SIGTERM, "done\n", "lgd: stopped by SIGTERM after the end of the command\n"),
    ],
)
def test_a_signal_ends_the_command_with_one_line_and_its_exit_code(
    moment: str, number: signal.Signals, out: str, err: str, folder: Path
):
    process = start(folder, moment)
    process.send_signal(number)
    assert ended(process) == (128 + number, out, err)


def test_a_signal_that_arrives_twice_at_the_same_time_is_one(folder: Path):
    """`timeout` and Slurm send it to the process and to its group."""
    process = start(folder, "command")
    process.send_signal(signal.SIGTERM)
    os.killpg(process.pid, signal.SIGTERM)
    code, _, err = ended(process)
    assert (code, err) == (143, "cleaned\nlgd: stopped by SIGTERM; rerun the same command to resume\nat exit\n")


@pytest.mark.parametrize("moment", ["stuck", "hang"])
def test_a_second_signal_ends_a_command_that_does_not_end_and_leaves_nothing(moment: str, folder: Path):
    process = start(folder, moment)
    process.send_signal(signal.SIGTERM)
    wait_for_line(process, b"STUCK\n" if moment == "stuck" else b"MARK\n")
    time.sleep(signals.SAME_S)
    process.send_signal(signal.SIGINT)
    assert ended(process) == (143, "", "lgd: stopped at once by SIGTERM; rerun the same command to resume\n")


def test_a_signal_to_the_group_does_not_reach_the_processes_of_a_cluster(folder: Path):
    process = start(folder, "children")
    child = int((folder / "pid").read_text())
    assert os.getpgid(child) == child
    assert signal_mask(child) & {signal.SIGINT, signal.SIGTERM} == set()
    os.killpg(process.pid, signal.SIGTERM)
    assert ended(process)[0] == 143


def test_a_signal_to_the_group_while_a_child_starts_does_not_reach_the_child():
    """The signals arrive after the creation of the process and before that of its group."""
    code = """
import os
from lgd.pipeline.console import signals
signals.watch()
os.setpgid = lambda *_: [os.kill(os.getpid(), number) for number in signals.ENDING_SIGNALS]
if os.fork() == 0:
    os._exit(7)
os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (7, "")


def signal_mask(pid: int) -> set[int]:
    """The signals that a process blocks."""
    status = Path(f"/proc/{pid}/status").read_text()
    mask = int(status.partition("SigBlk:")[2].split()[0], 16)
    return {number for number in range(1, 65) if mask >> (number - 1) & 1}


def test_ignored_signals_stay_ignored(folder: Path):
    """`nohup lgd ... &` keeps running after the terminal has closed."""
    command = ["nohup", sys.executable, "-c", PROGRAM, "deferred"]
    environment = {**os.environ, "FOLDER": str(folder)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for_line(process, b"MARK\n")
    process.send_signal(signal.SIGHUP)
    assert ended(process) == (0, "done\n", "started\nat exit\n")


def test_a_command_in_this_process_is_interrupted_as_python_does_it():
    """Tests and notebooks: `watch` was not called."""
    with pytest.raises(KeyboardInterrupt), signals.interruptible():
        raise KeyboardInterrupt
    assert (signals.last_line(), signals.exit_code()) == ("lgd: stopped; rerun the same command to resume", 130)
    signals.kill_children()
    signals.end()
    assert not signals.interrupted()
