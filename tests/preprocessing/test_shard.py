import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lgd.pipeline.console.errors import NodeError, UserError
from lgd.pipeline.dataset.dataset import shard_name
from lgd.pipeline.dataset.index_parts import part_name, read_part
from lgd.pipeline.storage.storage import Storage
from lgd.preprocessing.limits import LimitOptions
from lgd.preprocessing.plan import ShardPlan
from lgd.preprocessing.settings import PreprocessResources
from lgd.preprocessing.shard import REPORTS, make_shard, retry_shard
from lgd.preprocessing.video.decode import Frames, decode
from tests.preprocessing.conftest import (
    SETTINGS,
    SPECS,
    assert_same_bytes,
    create,
    empty_dataset,
    is_complete,
    retry,
    total,
)
from tests.preprocessing.video.generated_videos import ffmpeg


def test_every_video_is_in_the_shard_or_rejected_with_a_reason(folder: Path, plan: ShardPlan, tmp_path: Path):
    storage = empty_dataset(tmp_path)
    counters = create(storage, folder, plan)
    assert (counters.videos, counters.rejected, counters.frames, counters.flow_pairs) == (3, 2, 120, 117)
    for stream, lost in (("rgb", 0), ("flow", 1)):
        part, record = read_part(storage, stream, plan.name)
        rejected = {row["key"]: row["reason"] for row in record["rejected"]}
        assert rejected.keys() | set(part.column("key").to_pylist()) == {video.key for video in plan.videos}
        assert rejected["absent"] == "missing"
        assert len(rejected) == 2
        assert [len(ends) for ends in part.column("ends")] == [40 - lost] * 3
        assert is_complete(storage, SPECS[stream], plan)


def test_the_same_videos_give_the_same_bytes_in_one_run_and_with_one_run_per_stream(
    folder: Path, plan: ShardPlan, tmp_path: Path
):
    together, separate = empty_dataset(tmp_path / "together"), empty_dataset(tmp_path / "separate")
    create(together, folder, plan)
    create(separate, folder, plan, specs={"rgb": SPECS["rgb"]})
    assert not separate.exists(shard_name("flow", plan.name))
    create(separate, folder, plan, specs={"flow": SPECS["flow"]}, existing="rgb")
    assert_same_bytes(together, separate, plan)


def test_a_task_reports_its_progress_before_the_shard_is_complete(folder: Path, plan: ShardPlan, tmp_path: Path):
    reports = list(
        make_shard(empty_dataset(tmp_path), Storage(folder), plan, settings=SETTINGS, specs={"rgb": SPECS["rgb"]})
    )
    assert [report.done for report in reports] == [1] * len(plan.videos) + [0]
    assert len(plan.videos) <= REPORTS


def test_a_failure_leaves_no_shard_behind(
    folder: Path, plan: ShardPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    storage = empty_dataset(tmp_path)
    monkeypatch.setattr("lgd.preprocessing.encode.compute_codes", lambda *_, **__: 1 / 0)
    with pytest.raises(NodeError, match="no video can be encoded on this node"):
        create(storage, folder, plan)
    assert [storage.names(name) for name in ("rgb", "flow", "rgb/.parts", "flow/.parts")] == [[]] * 4


def failing_on(name: str) -> Callable[..., Frames]:
    """Return a `decode` that raises an error that nobody foresaw for one file."""

    def fail(path: Path, *arguments: Any, **options: Any) -> Frames:
        if path.name == name:
            raise ZeroDivisionError("division by zero")
        return decode(path, *arguments, **options)

    return fail


def test_an_error_that_nobody_foresaw_rejects_one_video_and_a_retry_without_it_writes_the_usual_bytes(
    folder: Path, plan: ShardPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    storage, without, usual = (empty_dataset(tmp_path / name) for name in ("failing", "without", "usual"))
    key = next(video.key for video in plan.videos if video.path == "up/up_1.mp4")
    with monkeypatch.context() as patch:
        patch.setattr("lgd.preprocessing.encode.decode", failing_on("up_1.mp4"))
        counters = create(storage, folder, plan)
        assert (counters.videos, counters.rejected) == (2, 3)
        rejected = read_part(storage, "flow", plan.name)[1]["rejected"]
        row = next(row for row in rejected if row["key"] == key)
        assert row["reason"] == "internal-error"
        assert row["detail"].startswith("ZeroDivisionError: division by zero (lgd/preprocessing/encode.py, line ")
        assert retry(storage, folder, plan).rejected == 3
        assert read_part(storage, "flow", plan.name)[1]["rejected"] == rejected
    absent = tuple(dataclasses.replace(video, missing=video.missing or video.key == key) for video in plan.videos)
    create(without, folder, dataclasses.replace(plan, videos=absent))
    for stream in SPECS:
        assert storage.read(shard_name(stream, plan.name)) == without.read(shard_name(stream, plan.name))
    assert retry(storage, folder, plan).videos == 1
    create(usual, folder, plan)
    assert_same_bytes(storage, usual, plan)


def test_an_error_that_nobody_foresaw_in_a_second_stream_is_one_line_that_says_what_to_do(
    folder: Path, plan: ShardPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    storage = empty_dataset(tmp_path)
    create(storage, folder, plan, specs={"rgb": SPECS["rgb"]})
    monkeypatch.setattr("lgd.preprocessing.encode.decode", failing_on("up_1.mp4"))
    with pytest.raises(
        UserError, match=r"is in the rgb stream but its encoding failed \(internal-error: Zero.* report"
    ):
        create(storage, folder, plan, specs={"flow": SPECS["flow"]}, existing="rgb")


def test_a_video_that_changed_between_the_streams_is_an_error_that_names_it(
    folder: Path, plan: ShardPlan, tmp_path: Path
):
    copy = tmp_path / "copy" / "up"
    copy.mkdir(parents=True)
    for path in (folder / "up").iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    storage = empty_dataset(tmp_path)
    create(storage, copy.parent, plan, specs={"rgb": SPECS["rgb"]})
    (copy / "up_1.mp4").write_bytes(b"overwritten")
    key = next(video.key for video in plan.videos if video.path == "up/up_1.mp4")
    with pytest.raises(UserError, match=f"{key} is in the rgb stream but cannot be decoded now"):
        create(storage, copy.parent, plan, specs={"flow": SPECS["flow"]}, existing="rgb")
    assert storage.names("flow") == []


def test_a_node_with_different_versions_is_refused(folder: Path, plan: ShardPlan, tmp_path: Path):
    planned = dataclasses.replace(SPECS["rgb"], settings={**SPECS["rgb"].settings, "ffmpeg": "0.5"})
    with pytest.raises(UserError, match=r"this node's versions would change the rgb data \(ffmpeg: 0.5 -> "):
        create(empty_dataset(tmp_path), folder, plan, specs={"rgb": planned})


def test_a_retry_writes_the_bytes_of_a_run_that_had_the_file_from_the_start(
    folder: Path, plan: ShardPlan, recovered_plan: ShardPlan, tmp_path: Path
):
    storage, fresh = empty_dataset(tmp_path / "retried"), empty_dataset(tmp_path / "fresh")
    create(storage, folder, plan)
    counters = retry(storage, folder, recovered_plan)
    assert (counters.videos, counters.rejected) == (1, 1)
    create(fresh, folder, recovered_plan)
    assert_same_bytes(storage, fresh, plan)


def test_a_retry_that_was_killed_between_two_streams_succeeds_when_repeated(
    folder: Path, plan: ShardPlan, recovered_plan: ShardPlan, tmp_path: Path
):
    storage, fresh = empty_dataset(tmp_path / "retried"), empty_dataset(tmp_path / "fresh")
    create(storage, folder, plan)
    create(fresh, folder, recovered_plan)
    storage.write(shard_name("rgb", plan.name), fresh.read(shard_name("rgb", plan.name)))  # only the first write
    retry(storage, folder, recovered_plan)
    assert_same_bytes(storage, fresh, plan)


def test_a_retry_does_not_copy_damaged_frames(folder: Path, plan: ShardPlan, recovered_plan: ShardPlan, tmp_path: Path):
    storage = empty_dataset(tmp_path)
    create(storage, folder, plan)
    path = Path(storage.path(shard_name("rgb", plan.name)))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"train-000000\.tar is damaged"):
        retry(storage, folder, recovered_plan)
    assert path.read_bytes() == content


def test_a_retry_with_larger_limits_writes_the_bytes_of_a_run_that_had_them_from_the_start(
    folder: Path, plan: ShardPlan, tmp_path: Path
):
    """The videos before the first recovered one are copied, those after it as well."""
    first = tmp_path / "videos" / "up"
    first.mkdir(parents=True)
    for path in (folder / "up").iterdir():
        (first / path.name).symlink_to(path.resolve())
    middle = first / "up_1.mp4"
    ffmpeg("-i", middle, "-t", "0.8", "-c:v", "libx264", "-pix_fmt", "yuv420p", first / "short.mp4")
    for name in ("up_0.mp4", "up_2.mp4"):  # shorter than the limit
        (first / name).unlink()
        (first / name).symlink_to("short.mp4")
    few = PreprocessResources(limits=LimitOptions(max_frames=30))
    specs = {"rgb": SPECS["rgb"]}
    limited, complete = empty_dataset(tmp_path / "limited"), empty_dataset(tmp_path / "complete")
    assert create(limited, first.parent, plan, specs=specs, resources=few).rejected == 3
    rejected = {row["key"]: row["detail"] for row in read_part(limited, "rgb", plan.name)[1]["rejected"]}
    key = next(video.key for video in plan.videos if video.path == "up/up_1.mp4")
    assert rejected[key].endswith("raise it with --max-frames or --max-seconds")
    counters = total(retry_shard(limited, Storage(first.parent), plan, settings=SETTINGS, specs=specs))
    assert (counters.videos, counters.rejected) == (1, 2)
    create(complete, first.parent, plan, specs=specs)
    for name in (shard_name("rgb", plan.name), part_name("rgb", plan.name)):
        assert limited.read(name) == complete.read(name)


def test_a_task_with_several_cpus_writes_the_same_bytes(folder: Path, plan: ShardPlan, tmp_path: Path):
    alone, overlapped, added = (empty_dataset(tmp_path / name) for name in ("alone", "overlapped", "added"))
    expected = create(alone, folder, plan)
    resources = PreprocessResources(cpus_per_task=3)
    counters = create(overlapped, folder, plan, resources=resources)
    assert_same_bytes(alone, overlapped, plan)
    assert (counters.videos, counters.rejected, counters.frames) == (expected.videos, expected.rejected, 120)
    assert all(counters.seconds[stage] > 0 for stage in ("decode", "flow", "jpeg"))
    create(added, folder, plan, specs={"rgb": SPECS["rgb"]}, resources=resources)
    create(added, folder, plan, specs={"flow": SPECS["flow"]}, existing="rgb", resources=resources)
    assert_same_bytes(alone, added, plan)
