"""The plan of a dataset: which shard holds which videos, and which shards are complete."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.console.progress import say
from lgd.pipeline.dataset.dataset import StreamSpec, shard_name
from lgd.pipeline.dataset.index_format import stored_label
from lgd.pipeline.dataset.index_parts import ADVICE, part_name, read_part
from lgd.pipeline.storage.checked_json import DamagedFile
from lgd.pipeline.storage.storage import Storage
from lgd.preprocessing.annotations.manifest import Manifest, Video, sort_classes
from lgd.preprocessing.annotations.split_names import standard_split
from lgd.preprocessing.video.files import composed

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
    or different videos, or if its index part is damaged: it must then be created again."""
    size = storage.size(shard_name(spec.stream, plan.name))
    if size is None:
        return None
    try:
        part, record = read_part(storage, spec.stream, plan.name)
    except FileNotFoundError:
        return None
    except DamagedFile as error:
        _say_once(str(error))
        return None
    if (record["recipe"], record["identity"], record["bytes"]) != (spec.hash, plan.identity, size):
        return None
    rejected = frozenset(row["key"] for row in record["rejected"])
    expected = [(video.key, stored_label(video.label)) for video in plan.videos if video.key not in rejected]
    found = list(zip(part.column("key").to_pylist(), part.column("label").to_pylist(), strict=True))
    if found != expected or not rejected <= {video.key for video in plan.videos}:
        source = storage.display(part_name(spec.stream, plan.name))
        _say_once(f"{source} is damaged (its videos are not those of the shard): {ADVICE}")
        return None
    return rejected


@lru_cache(maxsize=1024)
def _say_once(line: str) -> None:
    """Print a line, unless this process printed it before: shards are checked before and after the work."""
    say(line)


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
    only now keeps its row: its frames may already be in the dataset. Earlier versions of lgd kept names of splits,
    classes and files as the user had spelled them; they count as the same, and the dataset keeps its spelling.
    Raises UserError, naming what differs, unless both list the same videos."""
    listed = _with_planned_names(planned, listed)
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


def _with_planned_names(planned: Manifest, listed: Manifest) -> Manifest:
    """Return the manifest `listed` with the names that `planned` spells differently, and the labels, keys and splits
    that follow from them."""
    classes = tuple(dict.fromkeys(map(composed, planned.classes)))
    sorted_by_name = sort_classes(planned.classes) == planned.classes and sort_classes(classes) == listed.classes
    if classes != listed.classes and not sorted_by_name:
        return listed
    by_key = {video.key: video for video in planned.videos}
    by_file = {_file_of(video): video for video in planned.videos}
    # The key of a file, and the split that was chosen by the key, could depend on the spelling of its path.
    new_keys = any(
        video.key not in by_key and (old := by_file.get(_file_of(video))) and _file_of(old)[0] != old.path
        for video in listed.videos
    )
    videos = []
    for video in listed.videos:
        old = (by_file.get(_file_of(video)) if new_keys else None) or by_key.get(video.key)
        same_class = old and composed(old.class_name or "") == (video.class_name or "")
        if old and same_class and (new_keys or standard_split(old.split) == video.split):
            video = replace(video, key=old.key, label=old.label, class_name=old.class_name, split=old.split)
        videos.append(video)
    return replace(listed, videos=tuple(videos), classes=planned.classes)


def _file_of(video: Video) -> tuple[str, float | None, float | None]:
    """Return what identifies the file and the interval of a video, however a list spells its path."""
    return composed(video.path.strip()), video.start_s, video.end_s


def _is_same(before: Video, now: Video) -> bool:
    """If a file is missing, neither manifest is certain about its name and its start and end."""
    if before.missing or now.missing:
        before, now = (replace(video, path="", start_s=None, end_s=None, missing=False) for video in (before, now))
    return replace(before, path=_file_of(before)[0]) == replace(now, path=_file_of(now)[0])
