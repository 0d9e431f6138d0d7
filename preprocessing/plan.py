"""The plan of a dataset: which shard holds which videos, and which shards are complete."""

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

NEW_FOLDER = "use the same options and videos as before, or choose a new folder with --out"


@dataclass(frozen=True)
class ShardPlan:
    """The videos of one shard, fixed by the manifest. name: `<split>-000012`."""

    name: str
    videos: tuple[Video, ...]

    @property
    def identity(self) -> str:
        """Hash of the shard's list of videos. It does not depend on whether a file is missing."""
        rows = [(video.key, video.label, video.class_name, video.split) for video in self.videos]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


def default_videos_per_shard(videos: int) -> int:
    """Return the number of videos per shard of a new dataset.

    A small dataset gets about 64 shards, so that every core has work; a large one gets 128 videos per shard (about
    150 MB of Kinetics)."""
    return min(max(videos // 64, 4), 128)


def plan_shards(manifest: Manifest, videos_per_shard: int) -> list[ShardPlan]:
    """Divide the manifest, which is ordered by split and key, into shards, ordered by name."""
    plans = []
    for split, group in groupby(manifest.videos, lambda video: video.split):
        videos = tuple(group)
        for number, first in enumerate(range(0, len(videos), videos_per_shard)):
            plans.append(ShardPlan(f"{split}-{number:06d}", videos[first : first + videos_per_shard]))
    return plans


def rejected_keys(storage: Storage, spec: StreamSpec, plan: ShardPlan) -> frozenset[str] | None:
    """Return the keys that a shard's task rejected, or None if the shard is missing, incomplete, has a different spec
    or different videos."""
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


def find_complete_shards(
    storage: Storage, specs: Mapping[str, StreamSpec], plans: Sequence[ShardPlan], *, pool: Executor
) -> list[dict[str, frozenset[str]]]:
    """Return for every plan the streams whose shard is complete, with the keys that it rejected (equal in all of them).

    A video is in all streams or in none. If a killed retry has updated the shard of one stream but not the shard of
    another, the one that was not updated does not count as complete: it must be created again."""
    found: list[dict[str, frozenset[str]]] = [{} for _ in plans]
    for stream, spec in specs.items():
        rejected = pool.map(rejected_keys, [storage] * len(plans), [spec] * len(plans), plans)
        for complete, keys in zip(found, rejected, strict=True):
            if keys is not None:
                complete[stream] = keys
    for complete in found:
        newest = min(complete.values(), key=len, default=None)  # a retry only removes rejections
        for stream in [name for name, keys in complete.items() if keys != newest]:
            del complete[stream]
    return found


def update_manifest(planned: Manifest, listed: Manifest, out: str) -> Manifest:
    """Return the manifest `planned` of the dataset `out`, updated with files that were missing and now exist.

    planned: the manifest that the shards were planned from. listed: the manifest of this run. A file that is missing
    only now keeps its row: its frames may already be in the dataset.
    Raises UserError, naming what differs, unless both list the same videos."""
    before, now = ({video.key: video for video in manifest.videos} for manifest in (planned, listed))
    differences = []
    for keys, what in (
        (sorted(now.keys() - before.keys()), "new"),
        (sorted(before.keys() - now.keys()), "no longer listed"),
    ):
        if keys:
            differences.append(f"{len(keys)} {what}, such as {keys[0]}")
    if planned.classes != listed.classes:
        differences.append("different classes")
    if not differences:
        changed = [key for key in before if not _is_same(before[key], now[key])]
        if changed:
            differences.append(f"{len(changed)} with a different label, split, file or time, such as {changed[0]}")
    if differences:
        raise UserError(f"{out} was created from a different list of videos ({'; '.join(differences)}): {NEW_FOLDER}")
    found = {key for key, video in before.items() if video.missing and not now[key].missing}
    return replace(planned, videos=tuple(now[v.key] if v.key in found else v for v in planned.videos))


def _is_same(before: Video, now: Video) -> bool:
    """If a file is missing, neither manifest is certain about its name and its start and end."""
    if before.missing or now.missing:
        before, now = (replace(video, path="", start_s=None, end_s=None, missing=False) for video in (before, now))
    return before == now
