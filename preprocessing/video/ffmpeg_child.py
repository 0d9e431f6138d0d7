"""Run ffmpeg as a child process with limits on time, memory and output.

A video is untrusted input: no video may block a worker or exhaust its memory or disk. The child reads the video from an
open file descriptor. A file name can therefore not be interpreted as an option, a protocol or an image pattern, nor
appear in the log that `decode` parses; and the file that was checked is the file that is decoded.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import imageio_ffmpeg

from lgd.pipeline.console.errors import NodeError
from lgd.preprocessing.video.ffmpeg_log import FfmpegLog
from lgd.preprocessing.video.rejections import Limits, Rejected

# A decoder that writes more messages than this is stopped.
MAX_LOG_BYTES = 64 << 20


def ffmpeg_binary() -> Path:
    """Return the ffmpeg to use: the one on PATH if it exists, else the one in the imageio-ffmpeg package."""
    return Path(shutil.which("ffmpeg") or imageio_ffmpeg.get_ffmpeg_exe())


def ffmpeg_version() -> str:
    """Return the version that this ffmpeg prints, such as "7.1.1"; part of a stream spec.

    Raises RuntimeError if it prints none.
    """
    return _version_of(ffmpeg_binary())


@lru_cache
def _version_of(binary: Path) -> str:
    printed = subprocess.run([binary, "-version"], capture_output=True, text=True, timeout=60, check=True).stdout
    match = re.match(r"ffmpeg version (\S+)", printed)
    if not match:
        raise RuntimeError(f"{binary} -version prints no version: {printed[:100]!r}")
    return match[1]


@contextmanager
def open_video(path: Path) -> Iterator[int]:
    """Open a regular file for reading and yield its descriptor.

    Raises Rejected ("missing", "unreadable"). Other failures of the file system (a stale mount, an input/output error)
    are not caused by the video and are raised as OSError, so that the task is retried.
    """
    try:
        # Non-blocking: opening a named pipe would otherwise wait for a writer forever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise Rejected("missing", "the file does not exist") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO):
            raise Rejected("unreadable", os.strerror(error.errno)) from error
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Rejected("unreadable", "it is not a regular file")
        if status.st_size == 0:
            raise Rejected("unreadable", "the file is empty")
        yield descriptor
    finally:
        os.close(descriptor)


def run(arguments: list[str], video: int, limits: Limits, *, log: FfmpegLog, output: Callable[[bytes], None]) -> int:
    """Run ffmpeg on the open file `video` (as /dev/fd/N in `arguments`).

    log: receives ffmpeg's messages. output: called with each block of its standard output. Returns the exit status of
    ffmpeg.

    Raises Rejected at a limit ("timeout") or a crash ("decoder-error"), and any exception of `output`; the child and
    its own child processes have been killed by then. Raises NodeError if ffmpeg was killed from outside.
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
            _forward_output(child, limits, deadline, log=log, output=output)
            status = _wait(child, deadline, limits)
        except BaseException:
            os.killpg(child.pid, signal.SIGKILL)  # not waited for yet, so its process group id is still its own
            raise
    log.close()
    if status == -signal.SIGXCPU:
        raise Rejected("timeout", f"ffmpeg used more than {limits.seconds:g} s of processor time")
    if status in (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT):
        # Not caused by the video (a user, the out-of-memory killer, a node that shuts down): retry, do not reject.
        raise NodeError(f"ffmpeg was killed from outside by {signal.Signals(-status).name}")
    if status < 0:
        raise Rejected("decoder-error", f"ffmpeg crashed with signal {-status}")
    return status


def _limit_resources(pid: int, limits: Limits) -> None:
    """Limit a child's memory, processor time and the size of files that it writes.

    Set by the parent process: code between fork and exec is not safe in a process with threads, such as a Ray worker.
    """
    if sys.platform != "linux":
        return
    seconds = math.ceil(limits.seconds)
    for kind, soft, hard in (
        (resource.RLIMIT_AS, limits.memory_bytes, limits.memory_bytes),
        (resource.RLIMIT_CPU, seconds, seconds + 1),  # also ends a child whose parent was killed
        (resource.RLIMIT_FSIZE, 0, 0),  # it writes to pipes only
        (resource.RLIMIT_CORE, 0, 0),
    ):
        allowed = resource.getrlimit(kind)[1]
        if allowed != resource.RLIM_INFINITY:
            soft, hard = min(soft, allowed), min(hard, allowed)
        try:
            resource.prlimit(pid, kind, (soft, hard))
        except ProcessLookupError:
            return  # it has already ended; `run` checks its exit status


def _forward_output(
    child: subprocess.Popen[bytes], limits: Limits, deadline: float, *, log: FfmpegLog, output: Callable[[bytes], None]
) -> None:
    """Forward the child's output and messages until it closes both pipes. Raises Rejected at a limit."""
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
            if now > last_output + limits.stall_s:
                raise Rejected("timeout", f"ffmpeg wrote no frame for {limits.stall_s:g} s")
            for key, _ in selector.select(min(deadline, last_output + limits.stall_s) - now):
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
