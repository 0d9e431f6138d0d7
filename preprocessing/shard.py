"""One Ray task: the videos of one shard -> one tar and one index part per stream, with a record of rejected videos."""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.dataset.dataset import STREAMS, StreamSpec
from lgd.pipeline.dataset.index_format import IndexRow
from lgd.pipeline.dataset.index_parts import read_part, write_part
from lgd.pipeline.storage.storage import Storage
from lgd.preprocessing.annotations.manifest import Video
from lgd.preprocessing.counters import ShardCounters
from lgd.preprocessing.encode import encode_video, prepare_encoders, source_frames
from lgd.preprocessing.isolation import Encode, encode_isolated
from lgd.preprocessing.overlap import Overlap
from lgd.preprocessing.plan import ShardPlan, rejected_keys
from lgd.preprocessing.settings import PreprocessResources, Settings
from lgd.preprocessing.shard_tar import EncodedVideo, ShardTar, read_shard
from lgd.preprocessing.video.rejections import Rejected

REPORTS = 16  # progress reports per task: a number, not a time, so that a repeated task makes the same ones


def make_shard(
    storage: Storage,
    videos: Storage,
    plan: ShardPlan,
    *,
    settings: Settings,
    specs: Mapping[str, StreamSpec],
    existing: str | None = None,
    resources: PreprocessResources = PreprocessResources(),
    encode: Encode = encode_video,
) -> Iterator[ShardCounters]:
    """Create the shard `plan` of the streams in `specs`: videos of a folder -> tars and index parts.

    existing: a stream that already has this shard; the new streams must get the same videos and frames.
    resources: with the limits on a video. encode: called as `encode_video`.
    Yields counters after every few videos and when the shard is complete. A video that cannot be decoded is recorded
    as rejected, also for an error that nobody foresaw; what is not caused by a video is raised, see `encode_isolated`.
    Raises UserError if the disk is full, if the versions on this node differ from the specs', and if a video is not as
    it is in the `existing` stream."""
    _check_versions(settings, specs)
    frame_counts = None if existing is None else _frame_counts(storage, existing, plan)
    counters, rejected = ShardCounters(), []
    limits = resources.limits_on_this_node(settings.fps)
    prepare_encoders(settings, specs, counters)
    with ExitStack() as stack:  # the tars appear under their names only if the block ends without an error
        if resources.cpus_per_task >= 2:
            decoded = [video for video in plan.videos if frame_counts is None or video.key in frame_counts]
            encode = partial(encode, overlap=stack.enter_context(Overlap(resources.cpus_per_task, decoded)))
        tars = {stream: stack.enter_context(ShardTar.create(storage, stream, plan.name)) for stream in specs}
        for number, video in enumerate(plan.videos, 1):
            try:
                if frame_counts is not None and video.key not in frame_counts:
                    raise _recorded_rejection(storage, str(existing), plan, video=video)
                encoded = encode_isolated(
                    encode, videos, video, settings=settings, streams=specs, counters=counters, limits=limits
                )
            except Rejected as rejection:
                if frame_counts is not None and video.key in frame_counts:
                    raise _not_as_before(video, str(existing), rejection) from rejection
                rejected.append(_rejection_row(video, rejection))
                counters.rejected += 1
            else:
                if frame_counts is not None and (frames := source_frames(encoded)) != frame_counts[video.key]:
                    raise UserError(
                        f"{video.key} has {frames} frames now but {frame_counts[video.key]} in the {existing} stream: "
                        "the file has changed; preprocess into a new folder"
                    )
                with counters.timed("write"):
                    for stream, one in encoded.items():
                        tars[stream].add(video, one)
            if number % -(-len(plan.videos) // REPORTS) == 0:
                yield counters
                counters = ShardCounters()
        start = time.perf_counter()
    _write_parts(storage, plan, specs, tars=tars, rejected=rejected)
    counters.seconds["write"] += time.perf_counter() - start
    yield counters


def retry_shard(
    storage: Storage,
    videos: Storage,
    plan: ShardPlan,
    *,
    settings: Settings,
    specs: Mapping[str, StreamSpec],
    resources: PreprocessResources = PreprocessResources(),
) -> Iterator[ShardCounters]:
    """Retry the videos that a complete shard rejected; copy the others.

    specs: of all streams that have the shard. Writes the same bytes as `make_shard` would now. Raises UserError as
    `make_shard` does, and if the shard is damaged."""
    recorded = {rejected_keys(storage, spec, plan) for spec in specs.values()}
    if len(recorded) != 1 or None in recorded:  # an earlier attempt at this task was killed between two writes
        yield from make_shard(storage, videos, plan, settings=settings, specs=specs, resources=resources)
        return
    _check_versions(settings, specs)
    limits = resources.limits_on_this_node(settings.fps)
    retried = recorded.pop() or frozenset()
    counters, rejected = ShardCounters(), list[dict[str, str]]()
    prepare_encoders(settings, specs, counters)
    with ExitStack() as stack:  # the videos are written one by one: a long one takes much memory
        shard: _Rewritten | None = None  # opened for the first video that is recovered
        unchanged: list[Video] = []  # videos before it
        for video in plan.videos:
            if video.key in retried:
                try:
                    encoded = encode_isolated(
                        encode_video, videos, video, settings=settings, streams=specs, counters=counters, limits=limits
                    )
                except Rejected as rejection:
                    rejected.append(_rejection_row(video, rejection))
                    counters.rejected += 1
                    continue
                with counters.timed("write"):
                    if shard is None:
                        shard = stack.enter_context(_rewritten(storage, plan, specs))
                        for earlier in unchanged:
                            shard.copy(earlier)
                    shard.add(video, encoded)
            elif shard is None:
                unchanged.append(video)
            else:
                with counters.timed("write"):
                    shard.copy(video)
    if shard is not None:
        _write_parts(storage, plan, specs, tars=shard.tars, rejected=rejected)
    else:  # the same videos are rejected, possibly for different reasons
        for stream in specs:
            part, record = read_part(storage, stream, plan.name)
            rows = [IndexRow(**row) for row in part.to_pylist()]
            write_part(storage, stream, plan.name, rows=rows, record={**record, "rejected": rejected})
    yield counters


@dataclass(frozen=True)
class _Rewritten:
    """New tars of a shard by stream, and the videos of the present ones in order."""

    tars: Mapping[str, ShardTar]
    present: Mapping[str, Iterator[EncodedVideo]]

    def add(self, video: Video, encoded: Mapping[str, EncodedVideo]) -> None:
        for stream, tar in self.tars.items():
            tar.add(video, encoded[stream])

    def copy(self, video: Video) -> None:
        """Copy the next video of the present tars, which is `video`."""
        for stream, tar in self.tars.items():
            tar.add(video, next(self.present[stream]))


@contextmanager
def _rewritten(storage: Storage, plan: ShardPlan, specs: Iterable[str]) -> Iterator[_Rewritten]:
    """Open new tars of a shard, which replace the present ones if the block ends without an error."""
    with ExitStack() as stack:
        tars = {stream: stack.enter_context(ShardTar.create(storage, stream, plan.name)) for stream in specs}
        present = {stream: stack.enter_context(closing(read_shard(storage, stream, plan.name))) for stream in specs}
        yield _Rewritten(tars, present)


def _check_versions(settings: Settings, specs: Mapping[str, StreamSpec]) -> None:
    for stream, spec in specs.items():
        if differences := spec.differences(settings.spec(stream)):
            raise UserError(
                f"this node's versions would change the {stream} data ({'; '.join(differences)}): "
                "install the same versions on every node"
            )


def _frame_counts(storage: Storage, stream: str, plan: ShardPlan) -> dict[str, int]:
    """Return the number of decoded frames of each video in a shard of an existing stream, by key."""
    part = read_part(storage, stream, plan.name)[0]
    counts = (len(ends) + STREAMS[stream].lost_frames for ends in part.column("ends"))
    return dict(zip(part.column("key").to_pylist(), counts, strict=True))


def _recorded_rejection(storage: Storage, stream: str, plan: ShardPlan, *, video: Video) -> Rejected:
    """Return the rejection of a video that an existing stream has recorded."""
    rows = read_part(storage, stream, plan.name)[1]["rejected"]
    row = next(row for row in rows if row["key"] == video.key)
    return Rejected(row["reason"], row["detail"])


def _not_as_before(video: Video, existing: str, rejection: Rejected) -> UserError:
    """Return the error for a video that an existing stream has and that is rejected now."""
    if rejection.reason == "internal-error":
        return UserError(
            f"{video.key} is in the {existing} stream but its encoding failed ({rejection}): please report this error; "
            "in a new folder (--out) with all streams, only this video is rejected"
        )
    return UserError(
        f"{video.key} is in the {existing} stream but cannot be decoded now ({rejection.detail}): check the file, then "
        "rerun"
    )


def _rejection_row(video: Video, rejection: Rejected) -> dict[str, str]:
    return {"key": video.key, "reason": rejection.reason, "detail": rejection.detail}


def _write_parts(
    storage: Storage,
    plan: ShardPlan,
    specs: Mapping[str, StreamSpec],
    *,
    tars: Mapping[str, ShardTar],
    rejected: list[dict[str, str]],
) -> None:
    """Write the index parts: a shard is complete only when its part exists."""
    for stream, tar in tars.items():
        record = {
            "recipe": specs[stream].hash,
            "identity": plan.identity,
            "bytes": tar.size,
            "videos": tar.videos,
            "rejected": rejected,
        }
        write_part(storage, stream, plan.name, rows=tar.rows, record=record)
