"""Readers that a user would choose for clips from videos: PyAV, OpenCV and torchcodec, each with one thread.

Each returns uint8 count x H x W x 3, scaled to a short side; a video that is too short is repeated. start: position of
the first frame, from 0 to 1 of the possible positions."""

import contextlib
import importlib.util
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

TORCHCODEC_MISSING = (
    "torchcodec is not measured: pip install torchcodec, or 'torchcodec<0.14' for a PyTorch without CUDA"
)


def read_with_pyav(path: Path, start: float, count: int, *, short_side: int) -> np.ndarray:
    """Read a clip with PyAV."""
    import av

    pictures: list[np.ndarray] = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        width, height = _scaled(stream.width, stream.height, short_side)
        clock = float(stream.time_base or 1)
        length_s = stream.duration * clock if stream.duration else (container.duration or 0) / av.time_base
        first = (stream.start_time or 0) + start * max(length_s - count / float(stream.average_rate or 25), 0) / clock
        container.seek(int(first), stream=stream)
        for frame in container.decode(stream):
            if frame.pts is None or frame.pts >= int(first):
                pictures.append(frame.reformat(width, height, "rgb24", interpolation="BILINEAR").to_ndarray())
                if len(pictures) == count:
                    break
        if not pictures:  # the video is shorter than its container claims
            pictures.append(frame.reformat(width, height, "rgb24", interpolation="BILINEAR").to_ndarray())
    return _repeated(pictures, count)


def read_with_opencv(path: Path, start: float, count: int, *, short_side: int) -> np.ndarray:
    """Read a clip with OpenCV's VideoCapture."""
    import cv2

    video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    first = round(start * max(int(video.get(cv2.CAP_PROP_FRAME_COUNT)) - count, 0))
    if first:
        video.set(cv2.CAP_PROP_POS_FRAMES, first)
    pictures: list[np.ndarray] = []
    while len(pictures) < count:
        found, picture = video.read()
        if not found:
            break
        size = _scaled(picture.shape[1], picture.shape[0], short_side)
        scaled = cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)
        pictures.append(np.asarray(cv2.cvtColor(scaled, cv2.COLOR_BGR2RGB)))
    video.release()
    return _repeated(pictures, count)


def read_with_torchcodec(path: Path, start: float, count: int, *, short_side: int) -> np.ndarray:
    """Read a clip with torchcodec, which scales while it decodes. Needs `ffmpeg_for_torchcodec` around the process."""
    import torchcodec

    decoders: Any = torchcodec.decoders
    transforms: Any = torchcodec.transforms
    size = decoders.VideoDecoder(str(path), seek_mode="approximate").metadata
    width, height = _scaled(size.width, size.height, short_side)
    video = decoders.VideoDecoder(
        str(path),
        num_ffmpeg_threads=1,
        seek_mode="approximate",  # the exact mode reads the complete file first
        dimension_order="NHWC",
        transforms=[transforms.Resize((height, width))],
    )
    frames = len(video)
    first = round(start * max(frames - count, 0))
    clip: np.ndarray = video.get_frames_in_range(first, min(first + count, frames)).data.numpy()
    return _repeated(list(clip), count)


READERS: dict[str, Callable[..., np.ndarray]] = {
    "pyav": read_with_pyav,
    "opencv_video": read_with_opencv,
    "torchcodec": read_with_torchcodec,
}


@contextlib.contextmanager
def ffmpeg_for_torchcodec() -> Iterator[None]:
    """Let processes that start in this context find the FFmpeg libraries of PyAV, under the names that torchcodec uses.

    torchcodec comes without FFmpeg. Both readers then decode with the same libraries."""
    spec = importlib.util.find_spec("av")
    bundled = Path(spec.origin).parent.parent / "av.libs" if spec and spec.origin else None
    before = os.environ.get("LD_LIBRARY_PATH")
    with tempfile.TemporaryDirectory(prefix="lgd-ffmpeg-") as links:
        for file in bundled.iterdir() if bundled and bundled.is_dir() else ():
            if name := re.match(r"(lib(?:av|sw)\w+)-[0-9a-f]+(\.so\.\d+)", file.name):
                (Path(links) / f"{name[1]}{name[2]}").symlink_to(file)
        os.environ["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, [links, str(bundled or ""), before]))
        try:
            yield
        finally:
            if before is None:
                del os.environ["LD_LIBRARY_PATH"]
            else:
                os.environ["LD_LIBRARY_PATH"] = before


def _scaled(width: int, height: int, short_side: int) -> tuple[int, int]:
    scale = short_side / min(width, height)
    return round(width * scale), round(height * scale)


def _repeated(pictures: list[np.ndarray], count: int) -> np.ndarray:
    return np.stack([pictures[i % len(pictures)] for i in range(count)])
