"""The output folder of `lgd preprocess`: opened or created, with its plan, under a lock unless it is complete."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, replace
from typing import NamedTuple

import pyarrow as pa

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.console.progress import say
from lgd.pipeline.dataset.dataset import (
    DESCRIPTION,
    STREAMS,
    Dataset,
    StreamSpec,
    open_dataset,
)
from lgd.pipeline.dataset.split_table import read_split_table
from lgd.pipeline.dataset.splits import change_splits
from lgd.pipeline.dataset.tables import MANIFEST, MANIFEST_SCHEMA, read_table, write_table
from lgd.pipeline.storage.lock import LOCK, LockedStorage
from lgd.pipeline.storage.storage import TEMPORARY, Storage
from lgd.preprocessing.annotations.all_splits import OWN_SPLIT
from lgd.preprocessing.annotations.manifest import Manifest
from lgd.preprocessing.plan import (
    NEW_FOLDER,
    ShardPlan,
    default_videos_per_shard,
    find_complete_shards,
    plan_shards,
    update_manifest,
)
from lgd.preprocessing.settings import PreprocessResources, Settings

CompleteShards = Sequence[Mapping[str, frozenset[str]]]  # per plan, as `find_complete_shards` returns them


class OpenedOutput(NamedTuple):
    """A dataset, the manifest that it is made from, its shards, and per shard the streams that are complete."""

    dataset: Dataset
    manifest: Manifest
    plans: list[ShardPlan]
    complete: CompleteShards

    def remove_temporary_files(self) -> None:
        """Remove unfinished files of killed processes, not those of commands that share the work."""
        storage = self.dataset.storage
        if isinstance(storage, LockedStorage):  # otherwise nothing is written
            for folder in _folders(self.dataset):
                storage.clean(folder)


def _with_shards(dataset: Dataset, manifest: Manifest, pool: Executor) -> OpenedOutput:
    """Plan the shards of a dataset and find those that are complete."""
    plans = plan_shards(manifest, dataset.videos_per_shard)
    complete = find_complete_shards(dataset.storage, dataset.specs, plans, pool=pool)
    return OpenedOutput(dataset, manifest, plans, complete)


def open_complete(
    storage: Storage, manifest: Manifest, settings: Settings, *, specs: Mapping[str, StreamSpec], pool: Executor
) -> OpenedOutput | None:
    """Open a dataset that lacks nothing of the streams in `specs`; otherwise return None.

    Writes nothing, so that it needs no lock and the dataset may be read-only. Raises UserError as `open_or_create`."""
    if not storage.exists(DESCRIPTION):
        return None
    dataset = open_dataset(storage)
    if not set(specs) <= set(dataset.streams):
        return None
    listed, manifest = manifest, _resume_manifest(dataset, manifest, settings, specs=specs, retry_rejected=False)
    if not _has_splits(storage, listed):
        return None
    opened = _with_shards(dataset, manifest, pool)
    return opened if all(set(specs) <= streams.keys() for streams in opened.complete) else None


def work_identity(manifest: Manifest, specs: Mapping[str, StreamSpec], resources: PreprocessResources) -> str:
    """Return a hash of everything that decides the bytes: commands with the same one can share the work."""
    decisive: list[object] = [
        manifest.fingerprint(),
        sorted(spec.hash for spec in specs.values()),
        asdict(resources.limits),
    ]
    decisive += [manifest.members] if manifest.members else []
    return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()[:16]


def open_or_create(
    storage: LockedStorage,
    manifest: Manifest,
    settings: Settings,
    *,
    specs: Mapping[str, StreamSpec],
    retry_rejected: bool,
    pool: Executor,
) -> OpenedOutput:
    """Open the dataset, or create it with its plan.

    Raises UserError if the dataset was created from different videos or with different settings."""
    listed = manifest
    # One listing decides: a command that shares the work may create the dataset at the same time.
    names = {name for name in storage.names() if not name.startswith((TEMPORARY, LOCK))}
    if DESCRIPTION in names:
        dataset = open_dataset(storage)
        manifest = _resume_manifest(dataset, manifest, settings, specs=specs, retry_rejected=retry_rejected)
    else:
        if names - {MANIFEST}:
            raise UserError(f"{storage.display()} contains other files and is not a dataset: choose a different --out")
        storage.make_folder()
        write_table(storage, MANIFEST, manifest.table())
        dataset = Dataset(storage, "", manifest.classes, default_videos_per_shard(len(manifest.videos)), {})
    if not set(specs) <= set(dataset.specs):
        known = {**dataset.specs, **specs}
        dataset = replace(dataset, specs={stream: known[stream] for stream in STREAMS if stream in known})
        dataset.save()
    if listed.members and not _has_splits(storage, listed):
        keys = pa.array([video.key for video in manifest.videos], pa.string())
        change_splits(storage, dataset, dict(listed.members), known=keys)
    for folder in _folders(dataset):
        storage.make_folder(folder)
    opened = _with_shards(dataset, manifest, pool)
    opened.remove_temporary_files()
    return opened


def _has_splits(storage: Storage, manifest: Manifest) -> bool:
    """Return whether the table of a dataset has the splits of a manifest, with these videos."""
    if not manifest.members:
        return True
    table = read_split_table(storage).members
    return all(name in table and table[name].to_pylist() == list(keys) for name, keys in manifest.members)


def _folders(dataset: Dataset) -> list[str]:
    return ["", *(folder for stream in dataset.specs for folder in (stream, f"{stream}/.parts"))]


def _resume_manifest(
    dataset: Dataset, listed: Manifest, settings: Settings, *, specs: Mapping[str, StreamSpec], retry_rejected: bool
) -> Manifest:
    """Return the manifest of an existing dataset; with `retry_rejected`, including files that were missing before.

    listed: the manifest of this run. Raises UserError if it lists different videos or the settings differ."""
    storage = dataset.storage
    table = read_table(storage, MANIFEST, schema=MANIFEST_SCHEMA)
    same = table.equals(listed.table(), check_metadata=True)  # the usual case, and much faster than row by row
    planned = listed if same else Manifest.from_table(table)
    if not same and listed.members and all(video.split != OWN_SPLIT for video in planned.videos):
        raise UserError(
            f"{storage.display()} was created from one split of the lists (by earlier versions: 1): add --split-number "
            f"to resume it, and add the other splits with `lgd splits {storage.display()} --annotations FOLDER`"
        )
    updated = listed if same else update_manifest(planned, listed, storage.display())
    # A retry changes all streams: a video is in all of them or in none.
    for stream in (name for name in dataset.specs if retry_rejected or name in specs):
        if differences := dataset.specs[stream].differences(settings.spec(stream)):
            raise UserError(
                f"the {stream} stream of {storage.display()} was created with different settings "
                f"({'; '.join(differences)}): {NEW_FOLDER}"
            )
    found = sum(video.missing for video in planned.videos) - sum(video.missing for video in updated.videos)
    if found and not retry_rejected:
        what = "1 video that was missing now exists" if found == 1 else f"{found} videos that were missing now exist"
        say(f"{what}: use --retry-rejected to add {'it' if found == 1 else 'them'}")
        return planned
    if found:
        write_table(storage, MANIFEST, updated.table())
    return updated
