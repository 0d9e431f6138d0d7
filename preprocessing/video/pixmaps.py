"""Collecting the pictures that ffmpeg writes to a pipe."""

import re
from collections.abc import Callable

import numpy as np

from lgd.preprocessing.video.rejections import Limits, Rejected


class PpmReader:
    """Collects portable pixmaps from a pipe into one buffer of pixels; enforces the limits on what is kept.

    show: takes each picture (uint8 H x W x 3) when it is complete; then none is kept."""

    def __init__(self, limits: Limits, show: Callable[[np.ndarray], None] | None = None) -> None:
        self.limits = limits
        self.show = show
        self.size: tuple[int, int] | None = None  # width, height
        self.pixels = bytearray()
        self.header = b""
        self.wanted = 0  # bytes of the present picture still to come

    def feed(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            if self.wanted:
                self.pixels += view[: self.wanted]
                taken = min(len(view), self.wanted)
                self.wanted -= taken
                view = view[taken:]
                if self.show and not self.wanted:
                    self.show(self.frames()[0].copy())
                    self.pixels = bytearray()
            else:
                view = self._read_header(view)

    def _read_header(self, view: memoryview) -> memoryview:
        """Take up to the third line end: "P6\\n<width> <height>\\n255\\n"."""
        self.header += bytes(view[:64])
        parts = self.header.split(b"\n", 3)
        if len(parts) < 4:
            if len(self.header) > 64:
                raise Rejected("decoder-error", "ffmpeg's output is not a picture")
            return view[64:]
        found = re.fullmatch(rb"P6 ([1-9]\d{0,8}) ([1-9]\d{0,8}) 255", b" ".join(parts[:3]))
        if not found:
            raise Rejected("decoder-error", "ffmpeg's output is not a picture")
        size = (int(found[1]), int(found[2]))
        if self.size not in (None, size):
            raise Rejected("decoder-error", "the shape of the picture changes in the middle of the video")
        self.size = size
        self.wanted = size[0] * size[1] * 3
        if len(self.pixels) // self.wanted >= self.limits.frames:
            raise Rejected("too-large", f"more than {self.limits.frames} frames")
        if len(self.pixels) + self.wanted > self.limits.frame_bytes:
            raise Rejected("too-large", f"its resized frames are more than {self.limits.frame_bytes} bytes")
        rest = view[min(len(view), 64) - len(parts[3]) :]
        self.header = b""
        return rest

    def frames(self) -> np.ndarray:
        """uint8, T x H x W x 3."""
        if self.wanted:
            raise Rejected("decoder-error", "ffmpeg's output ends in the middle of a picture")
        width, height = self.size or (1, 1)
        return np.frombuffer(self.pixels, np.uint8).reshape(-1, height, width, 3)
