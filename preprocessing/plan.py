"""Which shard holds which videos, which shards are there, and whether a list of videos is the one planned from."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from itertools import groupby

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.dataset.dataset import StreamSpec, shard_name
from lgd.pipeline.dataset.index import read_part
from lgd.pipeline.storage.storage import Storage
from lgd.preprocessing.annotations.manifest import Manifest, Video

NEW_FOLDER = "give the same options and videos as before, or preprocess into a new folder with --out"


@dataclass(frozen=True)
class ShardPlan:
    """The videos of one shard, fixed by the manifest. name: `<split>-000012`."""

    name: str
    videos: tuple[Video, ...]

    @property
    def identity(self) -> str:
        """Changes when the shard's list of videos does; not when one that was missing turns up."""
        rows = [(video.key, video.label, video.class_name, video.split) for video in self.videos]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


def default_videos_per_shard(videos: int) -> int:
    """About 64 shards of a small dataset, so that there is work for every core; 128 videos a shard (about 150 MB of
    Kinetics) of a large one."""
    return min(max(videos // 64, 4), 128)


def plan_shards(manifest: Manifest, videos_per_shard: int) -> list[ShardPlan]:
    """Cuts the manifest, which is in order of split and key, into shards: in order of their names."""
    plans = []
    for split, group in groupby(manifest.videos, lambda video: video.split):
        videos = tuple(group)
        for number, first in enumerate(range(0, len(videos), videos_per_shard)):
            plans.append(ShardPlan(f"{split}-{number:06d}", videos[first : first + videos_per_shard]))
    return plans


def rejected_in(storage: Storage, spec: StreamSpec, plan: ShardPlan) -> frozenset[str] | None:
    """The keys that a shard's task rejected; None unless the shard is there, whole, of this recipe and these videos."""
    size = storage.size(shard_name(spec.stream, plan.name))
    if size is None:
        return None
    try:
        _, record = read_part(storage, spec.stream, plan.name)
    except FileNotFoundError:
        return None
    if (record["recipe"], record["identity"], record["bytes"]) != (spec.hash, plan.identity, size):
        return None
    return frozenset(row["key"] for row in record["rejected"])


def survey(
    storage: Storage, specs: Mapping[str, StreamSpec], plans: Sequence[ShardPlan], *, pool: Executor
) -> list[dict[str, frozenset[str]]]:
    """Of every plan, the streams whose shard is complete, with the keys that it rejected: the same in all of them.

    A video is in all streams or in none. Where a retry that was killed has mended the shard of one stream and not
    that of another, the other one does not count as complete: it is to be made again after the mended one."""
    found: list[dict[str, frozenset[str]]] = [{} for _ in plans]
    for stream, spec in specs.items():
        rejected = pool.map(rejected_in, [storage] * len(plans), [spec] * len(plans), plans)
        for streams, keys in zip(found, rejected, strict=True):
            if keys is not None:
                streams[stream] = keys
    for streams in found:
        min_workers = min(streams.values(), key=len, default=None)
        for stream in [name for name, keys in streams.items() if keys != min_workers]:
            del streams[stream]
    return found


def continued(before: Manifest, asked: Manifest, out: str) -> Manifest:
    """The manifest that a dataset goes on with: as `before`, with the files that were missing then and are `asked` now.

    A file that is missing now stays listed where it was: its frames may be in the dataset already.
    Raises UserError, naming what differs, unless both list the same videos."""
    then, now = ({video.key: video for video in manifest.videos} for manifest in (before, asked))
    parts = []
    for keys, what in ((sorted(now.keys() - then.keys()), "new"), (sorted(then.keys() - now.keys()), "gone")):
        if keys:
            parts.append(f"{len(keys)} {'is' if len(keys) == 1 else 'are'} {what}, such as {keys[0]}")
    if before.classes != asked.classes:
        parts.append("the classes differ")
    if not parts:
        differing = [key for key in then if not _same(then[key], now[key])]
        if differing:
            parts.append(f"labels, splits, files or times of {len(differing)} differ, such as {differing[0]}")
    if parts:
        raise UserError(f"{out} was made from another list of videos ({'; '.join(parts)}): {NEW_FOLDER}")
    found = {key for key, video in then.items() if video.missing and not now[key].missing}
    return replace(before, videos=tuple(now[v.key] if v.key in found else v for v in before.videos))


def _same(then: Video, now: Video) -> bool:
    """Where a file is missing, neither list knows its name and its part for sure."""
    if then.missing or now.missing:
        then, now = (replace(video, path="", start_s=None, end_s=None, missing=False) for video in (then, now))
    return then == now
