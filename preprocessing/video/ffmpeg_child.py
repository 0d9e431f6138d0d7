"""ffmpeg as a child process with limits: a video is hostile input, and no video may stop or fill the machine.

The child gets the video as an open file descriptor. So no file name can be taken for an option, a protocol or an image
pattern, or be printed into the log that `decode` reads; and what was checked is what is decoded.
"""

import errno
import math
import os
import re
import resource
import selectors
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import imageio_ffmpeg

from lgd.preprocessing.video.rejections import Limits, Rejected

# ffmpeg's log beyond this many bytes is no longer a log: the decoder is spewing.
MAX_LOG_BYTES = 64 << 20
LOG_HEAD_LINES, LOG_TAIL_LINES, LOG_LINE_CHARACTERS = 400, 100, 400


@dataclass
class FfmpegLog:
    """ffmpeg's messages: the first and the last lines, and how often each watched pattern occurred in all of them."""

    watched: dict[str, re.Pattern[str]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    head: list[str] = field(default_factory=list)
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=LOG_TAIL_LINES))
    size: int = 0
    _partial: str = ""

    def feed(self, data: bytes) -> None:
        self.size += len(data)
        *lines, partial = (self._partial + data.decode("utf-8", "replace")).replace("\r", "\n").split("\n")
        self._partial = partial[:LOG_LINE_CHARACTERS]  # a line without an end must not grow without an end
        for line in lines:
            self._line(line[:LOG_LINE_CHARACTERS])

    def close(self) -> None:
        if self._partial:
            self._line(self._partial)
        self._partial = ""

    def _line(self, line: str) -> None:
        for name, pattern in self.watched.items():
            if pattern.search(line):
                self.counts[name] = self.counts.get(name, 0) + 1
        if len(self.head) < LOG_HEAD_LINES:
            self.head.append(line)
        else:
            self.tail.append(line)

    def lines(self) -> Iterator[str]:
        yield from self.head
        yield from self.tail

    def complaint(self) -> str:
        """The first error line without its prefixes: what ffmpeg says went wrong, on one line."""
        for line in self.lines():
            if "[error]" in line or "[fatal]" in line:
                # Addresses and descriptor numbers differ from run to run; the reason for a rejection must not.
                return re.sub(r"\[[^\]]*\] ?|\b(file:)?/dev/fd/\d+\b", "", line).strip()[:200]
        return "ffmpeg gave no message"


def ffmpeg_binary() -> Path:
    """The ffmpeg to use: the system's if there is one on PATH, else the one that comes with imageio-ffmpeg."""
    return Path(shutil.which("ffmpeg") or imageio_ffmpeg.get_ffmpeg_exe())


def ffmpeg_version() -> str:
    """The version that the ffmpeg in use prints, such as "7.1.1"; part of a dataset's recipe."""
    return _version_of(ffmpeg_binary())


@lru_cache
def _version_of(binary: Path) -> str:
    printed = subprocess.run([binary, "-version"], capture_output=True, text=True, timeout=60, check=True).stdout
    found = re.match(r"ffmpeg version (\S+)", printed)
    if not found:
        raise RuntimeError(f"{binary} -version does not name a version: {printed[:100]!r}")
    return found[1]


@contextmanager
def open_video(path: Path) -> Iterator[int]:
    """Open a regular file for reading and yield its descriptor. Raises Rejected ("missing", "unreadable").

    Other failures of the file system (a stale mount, an input/output error) say nothing about the video and are
    raised as the OSError that they are, so that the task can be repeated.
    """
    try:
        # Without blocking: a named pipe would otherwise wait for a writer for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise Rejected("missing", "no such file") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO):
            raise Rejected("unreadable", os.strerror(error.errno)) from error
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Rejected("unreadable", "not a regular file")
        if status.st_size == 0:
            raise Rejected("unreadable", "the file is empty")
        yield descriptor
    finally:
        os.close(descriptor)


def run(arguments: list[str], video: int, limits: Limits, *, log: FfmpegLog, output: Callable[[bytes], None]) -> int:
    """Run ffmpeg on the open file `video` (as /dev/fd/N in `arguments`), feeding its messages and its output.

    Returns ffmpeg's exit status. Raises Rejected at a limit ("timeout") or a crash ("decoder-error") and whatever
    `output` raises; the child and its children are dead by then. Raises RuntimeError if somebody else killed it.
    """
    environment = {name: value for name, value in os.environ.items() if name != "FFREPORT"}
    environment["AV_LOG_FORCE_NOCOLOR"] = "1"
    with subprocess.Popen(
        [ffmpeg_binary(), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=(video,),
        start_new_session=True,
        env=environment,
    ) as child:
        try:
            _limit_resources(child.pid, limits)
            deadline = time.monotonic() + limits.seconds
            _pump(child, limits, deadline, log=log, output=output)
            status = _wait(child, deadline, limits)
        except BaseException:
            os.killpg(child.pid, signal.SIGKILL)  # not waited for yet, so the number is still its group's
            raise
    log.close()
    if status == -signal.SIGXCPU:
        raise Rejected("timeout", f"ffmpeg used more than {limits.seconds:g} s of processor time")
    if status in (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT):
        # Not the video's fault (an operator, the out-of-memory killer, a node going down): try again, do not reject.
        raise RuntimeError(f"ffmpeg was killed from outside by {signal.Signals(-status).name}")
    if status < 0:
        raise Rejected("decoder-error", f"ffmpeg crashed with signal {-status}")
    return status


def _limit_resources(pid: int, limits: Limits) -> None:
    """Bound a child's memory, processor time and files written.

    Set from outside: code between fork and exec is not safe in a process with threads, which a Ray worker is.
    """
    if sys.platform != "linux":
        return
    seconds = math.ceil(limits.seconds)
    for kind, soft, hard in (
        (resource.RLIMIT_AS, limits.memory_bytes, limits.memory_bytes),
        (resource.RLIMIT_CPU, seconds, seconds + 1),  # outlives us: it also ends a child whose parent was killed
        (resource.RLIMIT_FSIZE, 0, 0),  # it has no file to write
        (resource.RLIMIT_CORE, 0, 0),
    ):
        allowed = resource.getrlimit(kind)[1]
        if allowed != resource.RLIM_INFINITY:
            soft, hard = min(soft, allowed), min(hard, allowed)
        try:
            resource.prlimit(pid, kind, (soft, hard))
        except ProcessLookupError:
            return  # it has ended already, and its status says how


def _pump(
    child: subprocess.Popen[bytes], limits: Limits, deadline: float, *, log: FfmpegLog, output: Callable[[bytes], None]
) -> None:
    """Pass on what the child writes until it closes both pipes, or raise Rejected at a limit."""
    assert child.stdout is not None
    assert child.stderr is not None
    last_output = time.monotonic()
    with selectors.DefaultSelector() as selector:
        for pipe in (child.stdout, child.stderr):
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            now = time.monotonic()
            if now > deadline:
                raise Rejected("timeout", f"ffmpeg ran longer than {limits.seconds:g} s")
            if now > last_output + limits.silence_s:
                raise Rejected("timeout", f"ffmpeg gave no picture for {limits.silence_s:g} s")
            for key, _ in selector.select(min(deadline, last_output + limits.silence_s) - now):
                data = os.read(key.fd, 1 << 20)
                if not data:
                    selector.unregister(key.fileobj)
                elif key.fileobj is child.stdout:
                    last_output = time.monotonic()
                    output(data)
                else:
                    log.feed(data)
                    if log.size > MAX_LOG_BYTES:
                        raise Rejected("decoder-error", f"ffmpeg wrote more than {MAX_LOG_BYTES} bytes of messages")


def _wait(child: subprocess.Popen[bytes], deadline: float, limits: Limits) -> int:
    try:
        return child.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired as error:
        raise Rejected("timeout", f"ffmpeg ran longer than {limits.seconds:g} s") from error
