"""One video -> its frames and its optical flow as JPEGs, one encoded video per stream."""

from collections.abc import Container, Iterable, Mapping
from functools import cache, partial
from typing import Any

import cv2
import numpy as np

from lgd.pipeline.dataset.dataset import STREAMS
from lgd.pipeline.storage.storage import Storage
from lgd.preprocessing.annotations.manifest import Video
from lgd.preprocessing.counters import ShardCounters
from lgd.preprocessing.flow.tvl1 import compute_codes, warm_up
from lgd.preprocessing.overlap import Jpegs, Overlap
from lgd.preprocessing.settings import Settings
from lgd.preprocessing.shard_tar import EncodedVideo
from lgd.preprocessing.video.decode import Frames, decode
from lgd.preprocessing.video.files import local_file
from lgd.preprocessing.video.rejections import Limits, Rejected

FLOW_CHUNK = 64  # frame pairs whose flow is in memory at the same time
FLOW_PIXELS = 32 << 20  # of these pairs, if their frames are large: fewer then


def prepare_encoders(settings: Settings, streams: Container[str], counters: ShardCounters) -> None:
    """Compile the flow solver, or load it from the cache: once per process and settings, before a video is timed."""
    if "flow" in streams:
        with counters.timed("compile"):
            _warm_up(settings.flow.backend, settings.flow.torch_device, settings.flow.tvl1)


_warm_up = cache(warm_up)


def encode_video(
    videos: Storage,
    video: Video,
    settings: Settings,
    *,
    streams: Iterable[str],
    counters: ShardCounters,
    limits: Limits = Limits(),
    overlap: Overlap | None = None,
) -> dict[str, EncodedVideo]:
    """Decode a video of the folder `videos` and encode it for each stream; add the work to `counters`.

    overlap: threads, and the videos that follow. Raises Rejected if the file is missing or cannot be decoded within
    `limits`."""
    overlap = overlap or Overlap()
    frames = overlap.frames(video, partial(_decode, videos, settings=settings, limits=limits), counters)
    encoded = encode_frames(
        frames.rgb, frames.fps, video, settings=settings, streams=streams, counters=counters, overlap=overlap
    )
    counters.videos += 1
    counters.frames += len(frames.rgb)
    counters.flow_pairs += len(frames.rgb) - 1 if "flow" in encoded else 0
    return encoded


def _decode(videos: Storage, video: Video, *, settings: Settings, limits: Limits) -> Frames:
    if video.missing:
        raise Rejected("missing", f"the file {video.path} does not exist")
    with local_file(videos, video.path) as path:
        return decode(
            path,
            settings.fps,
            settings.short_side,
            start_s=video.start_s,
            end_s=video.end_s,
            limits=limits,
            untagged_matrix=settings.decoded_untagged_matrix,
        )


def encode_frames(
    rgb: np.ndarray,
    fps: float,
    video: Video,
    *,
    settings: Settings,
    streams: Iterable[str],
    counters: ShardCounters,
    overlap: Overlap | None = None,
) -> dict[str, EncodedVideo]:
    """Encode frames of a video for each stream; add the time to `counters`.

    rgb: consecutive frames, uint8, T x H x W x 3, at `fps` frames per second. overlap: threads that encode."""
    overlap = overlap or Overlap()
    encoded = {}
    height, width = rgb.shape[1:3]
    begun = {stream: _ENCODERS[stream](rgb, settings, counters, overlap=overlap) for stream in streams}
    for stream, (parts, details) in begun.items():
        jpegs = [jpeg for part in parts for jpeg in part(counters)]
        description = {
            "key": video.key,
            "label": video.label,
            "class": video.class_name,
            "fps": fps,
            "frames": len(jpegs),
            "width": width * max(STREAMS[stream].planes, 1),
            "height": height,
            "source": video.path,
            "start_s": video.start_s,
            "end_s": video.end_s,
            "bytes": [len(jpeg) for jpeg in jpegs],
            **details,
        }
        encoded[stream] = EncodedVideo(description, jpegs)
    return encoded


def source_frames(encoded: Mapping[str, EncodedVideo]) -> int:
    """Return the number of decoded frames of an encoded video, whichever streams it has."""
    stream, video = next(iter(encoded.items()))
    return len(video.frames) + STREAMS[stream].lost_frames


def _encode_rgb(
    rgb: np.ndarray, settings: Settings, counters: ShardCounters, *, overlap: Overlap
) -> tuple[list[Jpegs], dict[str, Any]]:
    return [overlap.jpegs(rgb, settings.jpeg_quality)], {}


def _encode_flow(
    rgb: np.ndarray, settings: Settings, counters: ShardCounters, *, overlap: Overlap
) -> tuple[list[Jpegs], dict[str, Any]]:
    parts: list[Jpegs] = []
    saturated = 0.0
    at_once = max(min(FLOW_CHUNK, FLOW_PIXELS // (rgb.shape[1] * rgb.shape[2])), 1)
    clips = (rgb[first : first + at_once + 1] for first in range(0, len(rgb) - 1, at_once))
    flow = settings.flow
    codes = compute_codes(
        map(_gray, clips), flow.tvl1, flow.backend, device=flow.torch_device, bound=settings.flow_bound
    )
    while True:
        with counters.timed("flow"):
            code = next(codes, None)
        if code is None:
            break
        planes, fraction = code
        saturated += fraction * len(planes)
        parts.append(overlap.jpegs(planes, flow.jpeg_quality))
    pairs = len(rgb) - 1
    return parts, {"bound": settings.flow_bound, "saturated": round(saturated / max(pairs, 1), 6)}


def _gray(clip: np.ndarray) -> np.ndarray:
    return np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in clip])


_ENCODERS = {"rgb": _encode_rgb, "flow": _encode_flow}
