"""One Ray task: the videos of one shard -> one tar of each stream, with its part of the index, or rejections."""

import dataclasses
import hashlib
import json
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import IO, Any

import cv2
import numpy as np
import webdataset

from pipeline.dataset import STREAMS, Recipe, shard_name
from pipeline.errors import UserError
from pipeline.index import IndexRow, read_part, write_part
from pipeline.storage import Storage
from preprocessing.annotations import Video
from preprocessing.decode import Frames, Limits, Rejected, decode
from preprocessing.flow_code import encode
from preprocessing.settings import Settings
from preprocessing.tvl1 import compute_flow
from preprocessing.video_files import local_file

MTIME = 0  # of every tar member: the same videos give the same bytes
BLOCK = 512  # of a tar
FLOW_CHUNK = 64  # pairs whose flow is in memory at once


@dataclass(frozen=True)
class ShardPlan:
    """The videos of one shard, fixed by the manifest. name: `<split>-000012`."""

    name: str
    videos: tuple[Video, ...]

    @property
    def identity(self) -> str:
        """Changes when the shard's list of videos does."""
        rows = [dataclasses.astuple(video) for video in self.videos]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class ShardResult:
    """What one task did. seconds: by stage (decode, flow, jpeg, write)."""

    name: str
    videos: int
    rejected: int
    frames: int
    flow_pairs: int
    seconds: Mapping[str, float]


class Stopwatch:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {"decode": 0.0, "flow": 0.0, "jpeg": 0.0, "write": 0.0}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[stage] += time.perf_counter() - start


def make_shard(
    storage: Storage,
    folder: Storage,
    plan: ShardPlan,
    settings: Settings,
    recipes: Mapping[str, Recipe],
    other: str | None = None,
    limits: Limits = Limits(),
) -> ShardResult:
    """Makes the shard `plan` of the streams in `recipes`: videos of `folder` -> tars and parts of the index.

    other: a stream that already has this shard; the same videos and frames must come out.
    A video that cannot be decoded is recorded as rejected. Raises UserError for a full disk, for a machine whose
    programs differ from the recipe's, and where a video turns out otherwise than in the `other` stream."""
    for stream, recipe in recipes.items():
        if differences := recipe.differences(settings.recipe(stream)):
            raise UserError(f"this machine would make other {stream} bytes than planned ({'; '.join(differences)})")
    before = None
    if other is not None:
        part = read_part(storage, other, plan.name)[0]
        lengths = (len(ends) + STREAMS[other].lost_frames for ends in part.column("ends"))
        before = dict(zip(part.column("key").to_pylist(), lengths, strict=True))

    watch, rejections, frames_made = Stopwatch(), [], 0
    with ExitStack() as stack:  # the tars appear under their names when the block ends well, and not at all otherwise
        tars: dict[str, ShardTar] = {}
        for stream in recipes:
            file = stack.enter_context(storage.writer(shard_name(stream, plan.name)))
            tars[stream] = stack.enter_context(closing(ShardTar(file, stream, plan.name)))
        for video in plan.videos:
            try:
                with watch("decode"):
                    if before is not None and video.key not in before:
                        raise _rejection_in(storage, str(other), plan.name, video.key)
                    frames = _decode(folder, video, settings, limits)
            except Rejected as rejection:
                if before is not None and video.key in before:
                    raise UserError(
                        f"{video.key} is in the {other} stream, but cannot be decoded now ({rejection.detail}): "
                        "see to the file, and run the same command again"
                    ) from rejection
                rejections.append({"key": video.key, "reason": rejection.reason, "detail": rejection.detail})
                continue
            if before is not None and len(frames.rgb) != before[video.key]:
                raise UserError(
                    f"{video.key} has {len(frames.rgb)} frames now and {before[video.key]} in the {other} stream: "
                    "the file has changed; preprocess into a new folder"
                )
            frames_made += len(frames.rgb)
            for stream, tar in tars.items():
                encoded, about = _ENCODERS[stream](frames, settings, watch)
                with watch("write"):
                    tar.add(video, frames, encoded, about)
    for stream, tar in tars.items():  # only with its part of the index is a shard complete
        record = {
            "recipe": recipes[stream].hash,
            "identity": plan.identity,
            "bytes": tar.size,
            "videos": tar.videos,
            "rejected": rejections,
        }
        write_part(storage, stream, plan.name, tar.rows, record)
    videos = len(plan.videos) - len(rejections)
    pairs = frames_made - videos if "flow" in recipes else 0
    return ShardResult(plan.name, videos, len(rejections), frames_made, pairs, watch.seconds)


def is_complete(storage: Storage, recipe: Recipe, plan: ShardPlan) -> bool:
    """Whether a shard is there, whole, of this recipe and with these videos."""
    size = storage.size(shard_name(recipe.stream, plan.name))
    if size is None:
        return False
    try:
        _, record = read_part(storage, recipe.stream, plan.name)
    except FileNotFoundError:
        return False
    return (record["recipe"], record["identity"], record["bytes"]) == (recipe.hash, plan.identity, size)


def _decode(folder: Storage, video: Video, settings: Settings, limits: Limits) -> Frames:
    if video.missing:
        raise Rejected("missing", f"there is no file {video.path}")
    with local_file(folder, video.path) as file:
        return decode(file, settings.fps, settings.short_side, video.start_s, video.end_s, limits)


def _rejection_in(storage: Storage, stream: str, shard: str, key: str) -> Rejected:
    """Why another stream rejected a video."""
    _, record = read_part(storage, stream, shard)
    row = next(row for row in record["rejected"] if row["key"] == key)
    return Rejected(row["reason"], row["detail"])


def _rgb(frames: Frames, settings: Settings, watch: Stopwatch) -> tuple[list[bytes], dict[str, Any]]:
    with watch("jpeg"):
        return [_jpeg(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), settings.jpeg_quality) for frame in frames.rgb], {}


def _flow(frames: Frames, settings: Settings, watch: Stopwatch) -> tuple[list[bytes], dict[str, Any]]:
    with watch("flow"):
        grey = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames.rgb])
    encoded: list[bytes] = []
    saturated = 0.0
    for first in range(0, len(grey) - 1, FLOW_CHUNK):
        with watch("flow"):
            flow = compute_flow(grey[first : first + FLOW_CHUNK + 1], settings.tvl1, settings.backend)
            planes, fraction = encode(flow, settings.flow_bound)
            saturated += fraction * len(planes)
        with watch("jpeg"):
            encoded += [_jpeg(plane, settings.flow_jpeg_quality) for plane in planes]
    return encoded, {"bound": settings.flow_bound, "saturated": round(saturated / max(len(encoded), 1), 6)}


def _jpeg(picture: np.ndarray, quality: int) -> bytes:
    done, encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise RuntimeError(f"OpenCV could not encode a picture of {picture.shape}")
    return encoded.tobytes()


_ENCODERS = {"rgb": _rgb, "flow": _flow}


class ShardTar:
    """The tar of one shard of one stream while it is written to a file, and the index rows of its videos.

    rows: the index rows so far. videos: what videos.parquet says of each. size: bytes of the closed tar."""

    def __init__(self, file: IO[bytes], stream: str, shard: str):
        self.rows: list[IndexRow] = []
        self.videos: list[dict[str, Any]] = []
        self.size = 0
        self._file, self._stream, self._shard = file, stream, shard
        self._writer = webdataset.TarWriter(file, mtime=MTIME, encoder=False)

    def add(self, video: Video, frames: Frames, encoded: list[bytes], about: Mapping[str, Any]) -> None:
        """Writes a video's pair of members. encoded: its JPEGs. about: more for its description."""
        sizes = [len(frame) for frame in encoded]
        height, width = frames.rgb.shape[1:3]
        width *= max(STREAMS[self._stream].planes, 1)
        description = {
            "key": video.key,
            "label": video.label,
            "class": video.class_name,
            "fps": frames.fps,
            "frames": len(encoded),
            "width": width,
            "height": height,
            "source": video.path,
            "start_s": video.start_s,
            "end_s": video.end_s,
            "bytes": sizes,
            **about,
        }
        text = json.dumps(description, sort_keys=True, ensure_ascii=False).encode()
        self._writer.write({"__key__": video.key, "json": text, "mjpeg": b"".join(encoded)})
        padded = -(-sum(sizes) // BLOCK) * BLOCK
        offset = self._writer.tarstream.offset - padded  # the mjpeg is the member written last
        ends = np.cumsum(sizes).tolist()
        crcs = [zlib.crc32(frame) for frame in encoded]
        self.rows.append(IndexRow(video.key, video.split, self._shard, video.label, width, height, offset, ends, crcs))
        self.videos.append({"bytes": sum(sizes), **about})

    def close(self) -> None:
        self._writer.close()
        self.size = self._file.tell()
