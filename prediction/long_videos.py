"""Long videos: only the frames that the clips of a prediction use are decoded, resized and stored.

They are the same frames as those of the completely decoded video. In the temporary dataset, each of the other frames is
one byte, NOT_STORED, which is never read.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from lgd.pipeline.dataset.dataset import STREAMS
from lgd.pipeline.storage.storage import Storage
from lgd.preprocessing.annotations.manifest import Video
from lgd.preprocessing.counters import ShardCounters
from lgd.preprocessing.encode import encode_frames, encode_video
from lgd.preprocessing.settings import Settings
from lgd.preprocessing.shard_tar import EncodedVideo
from lgd.preprocessing.video.containers import read_container
from lgd.preprocessing.video.decode import decode, decode_each_frame
from lgd.preprocessing.video.ffmpeg_child import open_video
from lgd.preprocessing.video.files import local_file
from lgd.preprocessing.video.filters import SEEKABLE
from lgd.preprocessing.video.packets import MAX_GAP_S, read_packets
from lgd.preprocessing.video.probe import probe
from lgd.preprocessing.video.rejections import Limits, Rejected, TooManyFrames

NOT_STORED = b"\0"  # not empty: an index in which a frame has no bytes is damaged
MAX_FRAMES = 1_000_000  # of a video: 11 hours at 25 frames per second
MAX_SECONDS = 3600.0  # of one ffmpeg run
TAIL_S = 30.0  # decoded to find the last frame
PIECE = 256  # frames in memory at the same time
PIECE_BYTES = 256 << 20  # of these frames, if they are large: fewer then
COMPLETE_BYTES = 1 << 30  # a video whose frames take at most this is encoded completely
# Decoding at most this many seconds for one piece, a seek costs less than decoding the video.
SEEK_S = 20.0

FramesOfClips = Callable[[int], np.ndarray]  # number of frames of a stream -> the numbers of those that clips contain
Consume = Callable[[range, np.ndarray], None]  # takes consecutive frames by their numbers, uint8 T x H x W x 3


def long_limits(limits: Limits) -> Limits:
    """Return the limits for a video of which few frames are kept."""
    return replace(
        limits, frames=max(limits.frames, MAX_FRAMES), seconds=max(limits.seconds, MAX_SECONDS), options=False
    )


def encode_for_clips(
    videos: Storage,
    video: Video,
    settings: Settings,
    *,
    streams: Iterable[str],
    counters: ShardCounters,
    limits: Limits,
    clip_frames: Mapping[str, FramesOfClips],
) -> dict[str, EncodedVideo]:
    """Encode a video as `encode_video` does; of a video over the limit on frames or with more than COMPLETE_BYTES of
    them, only those that clips contain.

    clip_frames: by stream. Raises Rejected as `encode_video`, but only for more than MAX_FRAMES frames; without
    advice on options of `lgd preprocess`."""
    if clip_frames:
        limits = replace(limits, frame_bytes=min(limits.frame_bytes, COMPLETE_BYTES), options=False)
    try:
        return encode_video(videos, video, settings, streams=streams, counters=counters, limits=limits)
    except TooManyFrames:
        if not clip_frames:
            raise
    limits = long_limits(limits)
    with local_file(videos, video.path) as path:
        frames, aspect, by_seeking = _count_frames(path, settings, limits)
        lengths = {stream: frames - STREAMS[stream].lost_frames for stream in streams}
        used = {stream: np.unique(clip_frames[stream](length)) for stream, length in lengths.items()}
        pieces = list(_pieces(used, _frames_at_once(settings.short_side, aspect)))
        encoder = _Encoder(video, settings, lengths=lengths, counters=counters)
        few = by_seeking and len(pieces) * SEEK_S * settings.fps < frames
        if not (few and _seek(path, settings, pieces, consume=encoder.add, limits=limits)):
            _decode_all(path, settings, pieces, consume=encoder.add, limits=limits)
    counters.videos += 1
    return encoder.encoded()


def _frames_at_once(short_side: int, aspect: float) -> int:
    """Return how many frames of this short side, pixels, and aspect ratio are in memory at the same time."""
    return max(min(PIECE, int(PIECE_BYTES / (3 * short_side**2 * aspect))), 1)


def _pieces(used: Mapping[str, np.ndarray], at_once: int) -> Iterator[range]:
    """Yield consecutive frames of the video, at most `at_once` + 1 at a time, in order.

    used: numbers of the frames of each stream, sorted. A frame of the flow takes two frames of the video, so pieces
    that continue each other have one frame in common."""
    needed = np.unique(
        np.concatenate([np.concatenate([each, each + STREAMS[stream].lost_frames]) for stream, each in used.items()])
    )
    for run in np.split(needed, np.flatnonzero(np.diff(needed) > 1) + 1):
        first, last = int(run[0]), int(run[-1])
        for start in range(first, max(last, first + 1), at_once):
            yield range(start, min(start + at_once, last) + 1)


class _Encoder:
    """Encodes pieces of a video for each stream, and joins them."""

    def __init__(self, video: Video, settings: Settings, *, lengths: Mapping[str, int], counters: ShardCounters):
        self._video, self._settings, self._counters = video, settings, counters
        self._frames = {stream: [NOT_STORED] * length for stream, length in lengths.items()}
        self._descriptions: dict[str, dict[str, object]] = {}

    def add(self, numbers: range, rgb: np.ndarray) -> None:
        pieces = encode_frames(
            rgb,
            float(_rate(self._settings)),
            self._video,
            settings=self._settings,
            streams=self._frames,
            counters=self._counters,
        )
        for stream, piece in pieces.items():
            self._descriptions.setdefault(stream, piece.description)
            self._frames[stream][numbers.start : numbers.start + len(piece.frames)] = piece.frames

    def encoded(self) -> dict[str, EncodedVideo]:
        return {
            stream: EncodedVideo(
                {**self._descriptions[stream], "frames": len(frames), "bytes": [len(frame) for frame in frames]}, frames
            )
            for stream, frames in self._frames.items()
        }


def _rate(settings: Settings) -> Fraction:
    """Return the frame rate as `decode` rounds it."""
    return Fraction(settings.fps).limit_denominator(1001)


def _count_frames(path: Path, settings: Settings, limits: Limits) -> tuple[int, float, bool]:
    """Return the number of frames of a video, their longer side over the shorter one, and whether seeks find them."""
    aspect = 1.0

    def on_frame(frame: np.ndarray) -> None:
        nonlocal aspect
        aspect = max(frame.shape[:2]) / 2

    try:
        if (counted := _count_by_seeking(path, settings, limits)) is not None:
            limits.check_frames(counted[0], 0)
            return *counted, True
        return decode_each_frame(path, settings.fps, 2, on_frame=on_frame, limits=limits), aspect, False
    except TooManyFrames as error:
        raise Rejected("too-large", f"the video has more than {limits.frames} frames: cut it") from error


def _count_by_seeking(path: Path, settings: Settings, limits: Limits) -> tuple[int, float] | None:
    """Return the number and the aspect ratio of the frames of a video of which only the end is decoded; None if they
    cannot be known from it."""
    with open_video(path) as video:
        source = probe(video, read_container(video, limits.seconds), limits)
        if not (source.container.startswith(SEEKABLE) and source.exact_duration and source.duration_s):
            return None
        packets = read_packets(video, [source.index], limits)[source.index]
    if packets.gaps_s > MAX_GAP_S:  # its clock may begin again
        return None
    rate = _rate(settings)
    first = max(int((source.duration_s - TAIL_S) * rate), 0)
    try:
        tail = decode(path, settings.fps, 2, start_s=first / float(rate), limits=limits, min_frames=1)
    except Rejected:  # the video is shorter than declared
        return None
    count = first + len(tail.rgb)
    if abs(count / rate - Fraction(packets.decodable_s() + packets.gaps_s)) >= 1:
        return None
    return count, max(tail.rgb.shape[1:3]) / 2


def _seek(path: Path, settings: Settings, pieces: Iterable[range], *, consume: Consume, limits: Limits) -> bool:
    """Decode only the pieces. Returns False if a piece does not have the expected number of frames."""
    rate = float(_rate(settings))
    for numbers in pieces:
        try:
            part = decode(
                path,
                settings.fps,
                settings.short_side,
                start_s=numbers.start / rate,
                end_s=numbers.stop / rate,
                limits=limits,
                untagged_matrix=settings.decoded_untagged_matrix,
                min_frames=1,
            )
        except Rejected as rejection:
            if rejection.reason != "too-short":
                raise
            return False
        if len(part.rgb) != len(numbers):
            return False
        consume(numbers, part.rgb)
    return True


def _decode_all(path: Path, settings: Settings, pieces: Iterable[range], *, consume: Consume, limits: Limits) -> None:
    """Decode the complete video, and keep the frames of one piece at a time."""
    following = iter(pieces)
    piece = next(following, None)
    kept: list[np.ndarray] = []
    number = 0

    def on_frame(frame: np.ndarray) -> None:
        nonlocal number, piece, kept
        if piece is not None and number in piece:
            kept.append(frame)
            if len(kept) == len(piece):
                consume(piece, np.stack(kept))
                before, piece = piece, next(following, None)
                kept = [frame] if piece is not None and piece.start == before.stop - 1 else []
        number += 1

    decode_each_frame(
        path,
        settings.fps,
        settings.short_side,
        on_frame=on_frame,
        limits=limits,
        untagged_matrix=settings.decoded_untagged_matrix,
    )
