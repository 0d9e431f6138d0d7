"""Read the frames that ffmpeg writes to a pipe as portable pixmaps (PPM)."""

import re
from collections.abc import Callable

import numpy as np

from lgd.preprocessing.video.rejections import Limits, Rejected

MAX_HEADER_BYTES = 64


class PpmReader:
    """Collect the frames of a PPM stream in one buffer, within the limits on what is kept.

    on_frame: called with each complete frame (uint8 H x W x 3); no frame is kept then.
    """

    def __init__(self, limits: Limits, on_frame: Callable[[np.ndarray], None] | None = None) -> None:
        self.limits = limits
        self.on_frame = on_frame
        self.size: tuple[int, int] | None = None  # width, height
        self.pixels = bytearray()
        self.count = 0  # frames that have begun
        self.header = b""
        self.remaining = 0  # bytes of the current frame that have not arrived yet

    def feed(self, data: bytes) -> None:
        """Add the next bytes that ffmpeg wrote.

        Raises Rejected: "decoder-error" for bytes that are not a frame and for a frame of a different size, "too-large"
        at a limit.
        """
        view = memoryview(data)
        while view:
            if self.remaining:
                self.pixels += view[: self.remaining]
                taken = min(len(view), self.remaining)
                self.remaining -= taken
                view = view[taken:]
                if self.on_frame and not self.remaining:
                    self.on_frame(self.frames()[0].copy())
                    self.pixels = bytearray()
            else:
                view = self._read_header(view)

    def _read_header(self, view: memoryview) -> memoryview:
        """Read up to the third line end, "P6\\n<width> <height>\\n255\\n", and return the bytes after it."""
        self.header += bytes(view[:MAX_HEADER_BYTES])
        parts = self.header.split(b"\n", 3)
        if len(parts) < 4:
            if len(self.header) > MAX_HEADER_BYTES:
                raise Rejected("decoder-error", "ffmpeg's output is not a frame")
            return view[MAX_HEADER_BYTES:]
        match = re.fullmatch(rb"P6 ([1-9]\d{0,8}) ([1-9]\d{0,8}) 255", b" ".join(parts[:3]))
        if not match:
            raise Rejected("decoder-error", "ffmpeg's output is not a frame")
        size = (int(match[1]), int(match[2]))
        if self.size not in (None, size):
            raise Rejected("decoder-error", "the frame size changes in the middle of the video")
        if self.size is None:
            self.limits.check_size(*size)  # again: the frames may differ from what the container declares
        self.size = size
        self.remaining = size[0] * size[1] * 3
        self.count += 1
        self.limits.check_frames(self.count, len(self.pixels) + self.remaining)
        rest = view[min(len(view), MAX_HEADER_BYTES) - len(parts[3]) :]
        self.header = b""
        return rest

    def frames(self) -> np.ndarray:
        """Return the frames, uint8 T x H x W x 3. Raises Rejected ("decoder-error") if the last one is incomplete."""
        if self.remaining:
            raise Rejected("decoder-error", "ffmpeg's output ends in the middle of a frame")
        width, height = self.size or (1, 1)
        return np.frombuffer(self.pixels, np.uint8).reshape(-1, height, width, 3)
