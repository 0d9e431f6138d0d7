"""A small shard, and what its tests do with it."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lgd.pipeline.dataset.dataset import StreamSpec, shard_name
from lgd.pipeline.dataset.index_parts import part_name
from lgd.pipeline.storage.storage import Storage
from lgd.preprocessing.annotations.read import read_manifest
from lgd.preprocessing.counters import ShardCounters
from lgd.preprocessing.plan import ShardPlan, rejected_keys
from lgd.preprocessing.settings import Settings
from lgd.preprocessing.shard import make_shard, retry_shard

SETTINGS = Settings(short_side=32)
SPECS = {stream: SETTINGS.spec(stream) for stream in ("rgb", "flow")}


@pytest.fixture(scope="session")
def folder(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A class folder with three valid videos and one broken video."""
    folder = tmp_path_factory.mktemp("shard")
    (folder / "up").mkdir()
    for number in range(3):
        (folder / "up" / f"up_{number}.mp4").symlink_to(videos / "up" / f"up_{number:03d}.mp4")
    (folder / "up" / "broken.mp4").write_bytes(b"text, not video" * 50)
    return folder


@pytest.fixture(scope="session")
def plan(folder: Path) -> ShardPlan:
    """The four videos, and one that is listed but missing."""
    existing = tuple(
        dataclasses.replace(video, split="train") for video in read_manifest(folder, val_fraction=0.25).videos
    )
    missing = dataclasses.replace(existing[0], key="absent", path="up/absent.mp4", missing=True)
    return ShardPlan("train-000000", (*existing, missing))


@pytest.fixture(scope="session")
def recovered_plan(plan: ShardPlan) -> ShardPlan:
    """The same plan after the missing file has been found."""
    found = dataclasses.replace(plan.videos[-1], path="up/up_0.mp4", missing=False)
    return ShardPlan(plan.name, (*plan.videos[:-1], found))


def create(storage: Storage, folder: Path, plan: ShardPlan, **options: Any) -> ShardCounters:
    """Create a shard, of both streams by default, and return its counters."""
    return total(make_shard(storage, Storage(folder), plan, **{"settings": SETTINGS, "specs": SPECS, **options}))


def retry(storage: Storage, folder: Path, plan: ShardPlan) -> ShardCounters:
    """Retry a shard of both streams and return its counters."""
    return total(retry_shard(storage, Storage(folder), plan, settings=SETTINGS, specs=SPECS))


def total(reports: Iterator[ShardCounters]) -> ShardCounters:
    counters = ShardCounters()
    for report in reports:
        counters.add(report)
    return counters


def is_complete(storage: Storage, spec: StreamSpec, plan: ShardPlan) -> bool:
    return rejected_keys(storage, spec, plan) is not None


def empty_dataset(folder: Path) -> Storage:
    storage = Storage(folder)
    for stream in SPECS:
        storage.make_folder(f"{stream}/.parts")
    return storage


def shard_files(plan: ShardPlan, *streams: str) -> list[str]:
    """Names of the tars and the index parts of a shard."""
    return [name for stream in streams for name in (shard_name(stream, plan.name), part_name(stream, plan.name))]


def assert_same_bytes(one: Storage, other: Storage, plan: ShardPlan) -> None:
    for name in shard_files(plan, *SPECS):
        assert one.read(name) == other.read(name), name
