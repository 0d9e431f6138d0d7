"""One Ray task: the videos of one shard -> one tar of each stream, with its part of the index, or rejections."""

import json
import tarfile
import time
import zlib
from collections.abc import Container, Generator, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import IO, Any, NamedTuple

import cv2
import numpy as np

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.dataset.dataset import STREAMS, StreamSpec, shard_name
from lgd.pipeline.dataset.flow_code import encode
from lgd.pipeline.dataset.index import IndexRow, read_part, write_part
from lgd.pipeline.storage.storage import Storage
from lgd.preprocessing.annotations.manifest import Video
from lgd.preprocessing.flow.tvl1 import compute_flow, warm_up
from lgd.preprocessing.plan import ShardPlan, rejected_in
from lgd.preprocessing.settings import Settings
from lgd.preprocessing.video.decode import Frames, decode
from lgd.preprocessing.video.files import local_file
from lgd.preprocessing.video.rejections import Limits, Rejected

MTIME = 0  # of every tar member: the same videos give the same bytes
BLOCK = 512  # of a tar
FLOW_CHUNK = 64  # pairs whose flow is in memory at once
STAGES = ("compile", "decode", "flow", "jpeg", "write")
REPORTS = 16  # of its progress that a task makes: a count, not a time, so that a repeated task makes the same ones


@dataclass
class ShardCounters:
    """What a task has done since it last said so. seconds: by stage."""

    videos: int = 0
    rejected: int = 0
    frames: int = 0
    flow_pairs: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[stage] += time.perf_counter() - start

    @property
    def done(self) -> int:
        """Videos that are dealt with."""
        return self.videos + self.rejected

    def note(self, seconds: float) -> str:
        """Rates, so many seconds after the start."""
        rate, pairs = self.done / seconds, self.flow_pairs / seconds
        note = f"{self.rejected} rejected, {rate:.1f} videos/s"
        return note + (f", {pairs:.0f} flow pairs/s" if pairs else "")

    def add(self, other: "ShardCounters") -> None:
        for count in ("videos", "rejected", "frames", "flow_pairs"):
            setattr(self, count, getattr(self, count) + getattr(other, count))
        for stage, spent in other.seconds.items():
            self.seconds[stage] += spent


class Member(NamedTuple):
    """A video in a shard: its description, as JSON writes it, and its frames as JPEGs."""

    about: dict[str, Any]
    frames: list[bytes]


def make_shard(
    storage: Storage,
    videos: Storage,
    plan: ShardPlan,
    *,
    settings: Settings,
    specs: Mapping[str, StreamSpec],
    other: str | None = None,
    limits: Limits = Limits(),
) -> Iterator[ShardCounters]:
    """Makes the shard `plan` of the streams in `recipes`: videos of a folder -> tars and parts of the index.

    other: a stream that already has this shard; the same videos and frames must come out.
    Yields its progress: every so many videos, and when the shard is complete. A video that cannot be decoded is
    recorded as rejected. Raises UserError for a full disk, for a machine whose programs differ from the recipe's, and
    where a video turns out otherwise than in the `other` stream."""
    _refuse_other_programs(settings, specs)
    frames_in = None if other is None else _frames_in(storage, other, plan)
    work, rejected = ShardCounters(), []
    _get_ready(settings, specs, work)
    with ExitStack() as stack:  # the tars appear under their names when the block ends well, and not at all otherwise
        tars = {stream: stack.enter_context(ShardTar.writing(storage, stream, plan.name)) for stream in specs}
        for number, video in enumerate(plan.videos, 1):
            try:
                if frames_in is not None and video.key not in frames_in:
                    raise _rejection_in(storage, str(other), plan, video=video)
                members = _members(videos, video, settings, streams=specs, limits=limits, work=work)
            except Rejected as rejection:
                if frames_in is not None and video.key in frames_in:
                    raise UserError(
                        f"{video.key} is in the {other} stream, but cannot be decoded now ({rejection.detail}): "
                        "see to the file, and run the same command again"
                    ) from rejection
                rejected.append(_row(video, rejection))
                work.rejected += 1
            else:
                if frames_in is not None and (now := _frame_count(members)) != frames_in[video.key]:
                    raise UserError(
                        f"{video.key} has {now} frames now and {frames_in[video.key]} in the {other} stream: "
                        "the file has changed; preprocess into a new folder"
                    )
                with work.timed("write"):
                    for stream, member in members.items():
                        tars[stream].add(video, member)
            if number % -(-len(plan.videos) // REPORTS) == 0:
                yield work
                work = ShardCounters()
        start = time.perf_counter()
    _complete(storage, plan, specs, tars=tars, rejected=rejected)
    work.seconds["write"] += time.perf_counter() - start
    yield work


def retry_shard(
    storage: Storage,
    videos: Storage,
    plan: ShardPlan,
    *,
    settings: Settings,
    specs: Mapping[str, StreamSpec],
    limits: Limits = Limits(),
) -> Iterator[ShardCounters]:
    """Tries the videos again that a complete shard rejected; the others are copied.

    recipes: of all streams that have the shard. The bytes are those that `make_shard` would write now."""
    before = {rejected_in(storage, spec, plan) for spec in specs.values()}
    if len(before) != 1 or None in before:  # an attempt at this task died between two of its writes
        yield from make_shard(storage, videos, plan, settings=settings, specs=specs, limits=limits)
        return
    _refuse_other_programs(settings, specs)
    again = before.pop() or frozenset()
    work, rejected, found = ShardCounters(), [], dict[str, dict[str, Member]]()
    _get_ready(settings, specs, work)
    for video in plan.videos:
        if video.key in again:
            try:
                found[video.key] = _members(videos, video, settings, streams=specs, limits=limits, work=work)
            except Rejected as rejection:
                rejected.append(_row(video, rejection))
                work.rejected += 1
    with work.timed("write"):
        if found:
            with ExitStack() as stack:
                tars = {stream: stack.enter_context(ShardTar.writing(storage, stream, plan.name)) for stream in specs}
                for stream, tar in tars.items():
                    copies = stack.enter_context(closing(members_of(storage, stream, plan.name)))
                    for video in plan.videos:
                        if video.key in found:
                            tar.add(video, found[video.key][stream])
                        elif video.key not in again:
                            tar.add(video, next(copies))
            _complete(storage, plan, specs, tars=tars, rejected=rejected)
        else:  # perhaps for other reasons than before
            for stream in specs:
                part, record = read_part(storage, stream, plan.name)
                rows = [IndexRow(**row) for row in part.to_pylist()]
                write_part(storage, stream, plan.name, rows=rows, record={**record, "rejected": rejected})
    yield work


def members_of(storage: Storage, stream: str, shard: str) -> Generator[Member, None, None]:
    """The videos of a shard, in order. Raises UserError if the tar is damaged or a frame lost its checksum."""
    part = read_part(storage, stream, shard)[0]
    name = shard_name(stream, shard)
    try:
        with storage.open_whole(name) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for crcs in part.column("crc32"):
                about, body = (tar.extractfile(member).read() for member in (tar.next(), tar.next()))  # type: ignore
                description = json.loads(about)
                ends = np.cumsum(description["bytes"]).tolist()
                frames = [body[start:end] for start, end in zip([0, *ends], ends, strict=False)]
                if [zlib.crc32(frame) for frame in frames] != crcs.as_py():
                    raise ValueError(f"{description['key']} has another checksum")
                yield Member(description, frames)
    except (tarfile.TarError, AttributeError, KeyError, ValueError, EOFError) as error:
        raise UserError(
            f"{storage.display(name)} is damaged ({error}): delete it, and run the same command again"
        ) from error


def _refuse_other_programs(settings: Settings, specs: Mapping[str, StreamSpec]) -> None:
    for stream, spec in specs.items():
        if differences := spec.differences(settings.spec(stream)):
            raise UserError(f"this machine would make other {stream} bytes than planned ({'; '.join(differences)})")


def _get_ready(settings: Settings, streams: Container[str], work: ShardCounters) -> None:
    """Compiles the solver of the flow, or loads it from the cache: once in a process, and not in the first video."""
    if "flow" in streams:
        with work.timed("compile"):
            _warm_up(settings.flow.backend, settings.flow.torch_device)


_warm_up = cache(warm_up)


def _frames_in(storage: Storage, stream: str, plan: ShardPlan) -> dict[str, int]:
    """Frames of each video of a shard of another stream, counted as the RGB stream has them."""
    part = read_part(storage, stream, plan.name)[0]
    counts = (len(ends) + STREAMS[stream].lost_frames for ends in part.column("ends"))
    return dict(zip(part.column("key").to_pylist(), counts, strict=True))


def _frame_count(members: Mapping[str, Member]) -> int:
    stream, member = next(iter(members.items()))
    return len(member.frames) + STREAMS[stream].lost_frames


def _rejection_in(storage: Storage, stream: str, plan: ShardPlan, *, video: Video) -> Rejected:
    """Why another stream rejected a video."""
    rows = read_part(storage, stream, plan.name)[1]["rejected"]
    row = next(row for row in rows if row["key"] == video.key)
    return Rejected(row["reason"], row["detail"])


def _row(video: Video, rejection: Rejected) -> dict[str, str]:
    return {"key": video.key, "reason": rejection.reason, "detail": rejection.detail}


def _complete(
    storage: Storage,
    plan: ShardPlan,
    specs: Mapping[str, StreamSpec],
    *,
    tars: Mapping[str, "ShardTar"],
    rejected: list[dict[str, str]],
) -> None:
    """Writes the parts of the index: only with its part is a shard complete."""
    for stream, tar in tars.items():
        record = {
            "recipe": specs[stream].hash,
            "identity": plan.identity,
            "bytes": tar.size,
            "videos": tar.videos,
            "rejected": rejected,
        }
        write_part(storage, stream, plan.name, rows=tar.rows, record=record)


def _members(
    videos: Storage,
    video: Video,
    settings: Settings,
    *,
    streams: Mapping[str, Any],
    limits: Limits,
    work: ShardCounters,
) -> dict[str, Member]:
    """Decodes a video and encodes it for each stream. Raises Rejected."""
    with work.timed("decode"):
        if video.missing:
            raise Rejected("missing", f"there is no file {video.path}")
        with local_file(videos, video.path) as path:
            frames = decode(
                path, settings.fps, settings.short_side, start_s=video.start_s, end_s=video.end_s, limits=limits
            )
    members = {}
    height, width = frames.rgb.shape[1:3]
    for stream in streams:
        encoded, more = _ENCODERS[stream](frames, settings, work)
        about = {
            "key": video.key,
            "label": video.label,
            "class": video.class_name,
            "fps": frames.fps,
            "frames": len(encoded),
            "width": width * max(STREAMS[stream].planes, 1),
            "height": height,
            "source": video.path,
            "start_s": video.start_s,
            "end_s": video.end_s,
            "bytes": [len(frame) for frame in encoded],
            **more,
        }
        members[stream] = Member(about, encoded)
    work.videos += 1
    work.frames += len(frames.rgb)
    work.flow_pairs += len(frames.rgb) - 1 if "flow" in streams else 0
    return members


def _rgb(frames: Frames, settings: Settings, work: ShardCounters) -> tuple[list[bytes], dict[str, Any]]:
    with work.timed("jpeg"):
        return [_jpeg(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), settings.jpeg_quality) for frame in frames.rgb], {}


def _flow(frames: Frames, settings: Settings, work: ShardCounters) -> tuple[list[bytes], dict[str, Any]]:
    with work.timed("flow"):
        gray = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames.rgb])
    encoded: list[bytes] = []
    saturated = 0.0
    for first in range(0, len(gray) - 1, FLOW_CHUNK):
        with work.timed("flow"):
            chunk = gray[first : first + FLOW_CHUNK + 1]
            flow = compute_flow(chunk, settings.flow.tvl1, settings.flow.backend, device=settings.flow.torch_device)
            planes, fraction = encode(flow, settings.flow_bound)
            saturated += fraction * len(planes)
        with work.timed("jpeg"):
            encoded += [_jpeg(plane, settings.flow.jpeg_quality) for plane in planes]
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

    def __init__(self, file: IO[bytes], shard: str):
        import webdataset  # here, because it imports torch, of which only the tasks have need

        self.rows: list[IndexRow] = []
        self.videos: list[dict[str, Any]] = []
        self.size = 0
        self._file, self._shard = file, shard
        self._writer = webdataset.TarWriter(file, mtime=MTIME, encoder=False)

    @classmethod
    @contextmanager
    def writing(cls, storage: Storage, stream: str, shard: str) -> Iterator["ShardTar"]:
        """A tar that appears in the dataset when the block ends well, and not at all otherwise."""
        with storage.writer(shard_name(stream, shard)) as file, closing(cls(file, shard)) as tar:
            yield tar

    def add(self, video: Video, member: Member) -> None:
        """Writes a video's pair of members."""
        about, frames = member
        text = json.dumps(about, sort_keys=True, ensure_ascii=False).encode()
        body = b"".join(frames)
        self._writer.write({"__key__": video.key, "json": text, "mjpeg": body})
        padded = -(-len(body) // BLOCK) * BLOCK
        offset = self._writer.tarstream.offset - padded  # the mjpeg is the member written last
        ends = np.cumsum([len(frame) for frame in frames]).tolist()
        crcs = [zlib.crc32(frame) for frame in frames]
        place = (video.key, video.split, self._shard, video.label, about["width"], about["height"])
        self.rows.append(IndexRow(*place, offset, ends, crcs))
        self.videos.append({"bytes": len(body), **{name: about[name] for name in ("saturated",) if name in about}})

    def close(self) -> None:
        self._writer.close()
        self.size = self._file.tell()
