"""H.264 video files (mp4), written frame by frame by an ffmpeg child process."""

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import ffmpeg
import numpy as np

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.storage.storage import Storage
from lgd.preprocessing.video.ffmpeg_child import ffmpeg_binary
from lgd.preprocessing.video.ffmpeg_log import FfmpegLog


@contextmanager
def h264_writer(
    out: Storage, name: str, fps: float, *, crf: int, faststart: bool = False
) -> Iterator[Callable[[np.ndarray], None]]:
    """Yield the function that appends a frame (uint8 H x W x 3, RGB, even sides) to the video `name` in `out`.

    All frames have the size of the first one. The file appears when the block ends without an error, and not at all
    otherwise. fps: frames per second. crf: x264's constant rate factor, lower is better and larger. faststart: put the
    index at the start of the file, so that a browser can play it while it loads.

    Raises UserError if ffmpeg fails, with ffmpeg's message as one line, and if the file cannot be written; ValueError
    for a frame of a different size and for a video without frames.
    """
    with tempfile.TemporaryDirectory(prefix="lgd-h264-") as folder:
        file = Path(folder) / "video.mp4"
        encoder = _Encoder(file, out.display(name), fps, crf=crf, faststart=faststart)
        try:
            yield encoder.write
            encoder.finish()
        finally:
            encoder.kill()
        with out.writer(name) as target, file.open("rb") as encoded:
            shutil.copyfileobj(encoded, target)


class _Encoder:
    """An ffmpeg child process, started with the first frame, that encodes frames to a local file."""

    def __init__(self, file: Path, shown: str, fps: float, *, crf: int, faststart: bool):
        """shown: name of the video in messages."""
        self._shown = shown
        self._rate = Fraction(fps).limit_denominator(1001)
        self._file = file
        self._options = {"crf": crf, **({"movflags": "+faststart"} if faststart else {})}
        self._shape: tuple[int, ...] = ()
        self._child: subprocess.Popen[bytes] | None = None

    def write(self, frame: np.ndarray) -> None:
        """Encode the next frame. Raises UserError if ffmpeg has failed."""
        if self._child is None:
            self._shape = frame.shape
            self._child = self._start(width=frame.shape[1], height=frame.shape[0])
        if frame.shape != self._shape:
            raise ValueError(f"{self._shown}: a frame of shape {frame.shape} after frames of shape {self._shape}")
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(frame.tobytes())
        except BrokenPipeError:
            self.finish()  # raises UserError with ffmpeg's message
            raise

    def finish(self) -> None:
        """Wait until the file is complete. Raises UserError if ffmpeg has failed."""
        if self._child is None:
            raise ValueError(f"{self._shown}: a video needs at least one frame")
        log = FfmpegLog()
        log.feed(self._child.communicate()[1])
        log.close()
        if status := self._child.returncode:
            where = f"{self._shown}, encoded in {self._file.parent.parent} first"
            raise UserError(f"cannot write {where}: {log.first_error()} (ffmpeg exit status {status})")

    def kill(self) -> None:
        """End the child process if it still runs."""
        if self._child is not None and self._child.returncode is None:
            self._child.kill()
            self._child.communicate()

    def _start(self, *, width: int, height: int) -> "subprocess.Popen[bytes]":
        frames = ffmpeg.input(
            "pipe:", format="rawvideo", pix_fmt="rgb24", s=f"{width}x{height}", framerate=str(self._rate)
        )
        output = frames.output(
            str(self._file), vcodec="libx264", pix_fmt="yuv420p", preset="veryfast", threads=1, **self._options
        )
        output = output.global_args("-hide_banner", "-nostats", "-loglevel", "repeat+level+error")
        # At this level only a failure is logged, and it ends ffmpeg: the pipe is read at the end and does not fill up.
        command = output.compile(cmd=str(ffmpeg_binary()))
        return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
