"""Overlap of the work of one task that has several CPUs: a thread decodes the next video while the flow of this one is
computed, and others encode JPEGs. The bytes are the same as without.

A task with one CPU does one thing after the other: tasks that run at the same time use the cores better then. Several
CPUs are for tasks that share a GPU, which would wait while their videos are decoded."""

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, Self

import cv2
import numpy as np

from lgd.preprocessing.annotations.manifest import Video
from lgd.preprocessing.counters import ShardCounters
from lgd.preprocessing.video.decode import Frames

Timed = tuple[float, Any]  # seconds that a piece of work took in its thread, and its result
Jpegs = Callable[[ShardCounters], list[bytes]]


class Overlap(AbstractContextManager["Overlap"]):
    """The threads of one task.

    cpus: of the task; threads are used from 2 on. videos: that are decoded, in this order."""

    def __init__(self, cpus: float = 1, videos: Sequence[Video] = ()):
        threads = int(cpus) - 1
        self._decoder = ThreadPoolExecutor(1, "decode") if threads > 0 else None
        self._encoders = ThreadPoolExecutor(threads, "jpeg") if threads > 0 else None
        self._following = dict(zip((video.key for video in videos), videos[1:], strict=False))
        self._ahead: dict[str, Future[Timed]] = {}

    def frames(self, video: Video, decode: Callable[[Video], Frames], counters: ShardCounters) -> Frames:
        """Return the frames of a video, and begin to decode the next one. Raises the exceptions of `decode`.

        A video that is asked for a second time is decoded again."""
        ahead = self._ahead.pop(video.key, None)
        following = self._following.pop(video.key, None)
        if self._decoder is not None and following is not None:
            self._ahead[following.key] = self._decoder.submit(_timed, decode, following)
        if ahead is None:
            with counters.timed("decode"):
                return decode(video)
        seconds, frames = ahead.result()
        counters.seconds["decode"] += seconds
        decoded: Frames = frames
        return decoded

    def jpegs(self, images: Iterable[np.ndarray], quality: int) -> Jpegs:
        """Begin to encode images as JPEGs. The result waits for them, adds their time, and returns them in order."""
        if self._encoders is None:
            encoded = [_timed(_jpeg, image, quality) for image in images]
            return lambda counters: _collect(encoded, counters)
        running = [self._encoders.submit(_timed, _jpeg, image, quality) for image in images]
        return lambda counters: _collect([future.result() for future in running], counters)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """Leave the threads. A video that is being decoded is decoded to its end, for nobody."""
        for pool in (self._decoder, self._encoders):
            if pool is not None:
                pool.shutdown(wait=False, cancel_futures=True)


def _collect(encoded: Iterable[Timed], counters: ShardCounters) -> list[bytes]:
    jpegs: list[bytes] = []
    for seconds, jpeg in encoded:
        counters.seconds["jpeg"] += seconds
        jpegs.append(jpeg)
    return jpegs


def _timed(work: Callable[..., Any], *arguments: Any) -> Timed:
    start = time.perf_counter()
    result = work(*arguments)
    return time.perf_counter() - start, result


def _jpeg(image: np.ndarray[Any, np.dtype[Any]], quality: int) -> bytes:
    """image: gray or RGB."""
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    done, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise RuntimeError(f"OpenCV could not encode an image of shape {image.shape}")
    return encoded.tobytes()
