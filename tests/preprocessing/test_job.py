"""The preprocessing job as a user runs it: killed, resumed, extended, refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from lgd.clusters.testbed.processes import run_lgd, run_lgd_until
from lgd.pipeline.console.errors import UsageError
from lgd.pipeline.dataset.dataset import open_dataset, shard_name
from lgd.preprocessing.job import PreprocessResult
from lgd.preprocessing.limits import LimitOptions
from lgd.preprocessing.settings import PreprocessResources
from tests.preprocessing.video.generated_videos import X264, ffmpeg
from tests.support.in_process import preprocess_in_process


def command(videos: Path, out: Path, *more: object) -> tuple[object, ...]:
    """The command that created the fixture `dataset_folder`."""
    return ("preprocess", videos, "--out", out, "--short-side", 64, "--val-fraction", 0.34, *more)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_same_files(one: Path, other: Path) -> None:
    contents, expected = files(one), files(other)
    assert contents.keys() == expected.keys()
    assert [name for name in contents if contents[name] != expected[name]] == []


@pytest.mark.cluster
def test_a_job_that_was_killed_resumed_and_extended_by_a_stream_writes_the_bytes_of_an_undisturbed_run(
    videos: Path, dataset_folder: Path, tmp_path: Path
):
    out = tmp_path / "data"
    rgb, flow = out / "rgb", out / "flow"
    run_lgd_until(lambda: len(list(rgb.glob(".parts/train-*.arrow"))) >= 2, *command(videos, out, "--streams", "rgb"))
    assert not (rgb / "index.arrow").exists()
    done = run_lgd(*command(videos, out, "--streams", "rgb", "--num-workers", 1))
    assert done.returncode == 0, done.stderr
    assert "shards already exist" in done.stderr
    assert open_dataset(out).streams == ("rgb",)
    before = files(rgb)

    run_lgd_until(lambda: len(list(flow.glob(".parts/train-*.arrow"))) >= 1, *command(videos, out, "--streams", "flow"))
    assert open_dataset(out).streams == ("rgb",)
    done = run_lgd(*command(videos, out, "--num-workers", 1))
    assert done.returncode == 0, done.stderr
    assert files(rgb) == before
    assert_same_files(out, dataset_folder)


@pytest.mark.usefixtures("joined")
def test_a_complete_dataset_is_not_changed_and_a_lost_shard_is_created_again(
    videos: Path, dataset_folder: Path, tmp_path: Path
):
    out = tmp_path / "data"
    shutil.copytree(dataset_folder, out)
    done = run_lgd(*command(videos, out))
    assert done.returncode == 0
    assert "nothing to do" in done.stderr
    lost = out / shard_name("flow", "train-000001")
    lost.unlink()
    done = run_lgd(*command(videos, out))
    assert done.returncode == 0, done.stderr
    assert files(out) == files(dataset_folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--fps", 12), "rgb stream of {out} was created with different settings (fps: 25.0 -> 12.0)"),
        (("--flow.tvl1.warps", 3), "flow stream of {out} was created with different settings (tvl1.warps: 5 -> 3)"),
        (("--val-fraction", 0.5), "with a different label, split, file or time, such as "),
    ],
)
def test_different_options_for_the_same_dataset_are_refused_with_what_differs(
    videos: Path, dataset_folder: Path, options: tuple[object, ...], message: str
):
    before = files(dataset_folder)
    done = run_lgd(*command(videos, dataset_folder, *options))
    assert done.returncode == 1
    assert message.format(out=dataset_folder) in done.stderr
    recognized, _ = done.stderr.splitlines()
    assert recognized == f"{videos}: recognized as class folders"
    assert files(dataset_folder) == before


def test_different_videos_for_the_same_dataset_are_refused_by_name(videos: Path, dataset_folder: Path, tmp_path: Path):
    more = tmp_path / "videos"
    shutil.copytree(videos, more)
    (more / "up" / "up_002.mp4").rename(more / "up" / "up_new.mp4")
    done = run_lgd(*command(more, dataset_folder))
    assert done.returncode == 1
    assert "(1 new, such as up-up_new; 1 no longer listed, such as up-up_002)" in done.stderr


@pytest.mark.usefixtures("joined")
def test_a_full_disk_is_a_one_line_error(videos: Path, full_disk: Path):
    done = run_lgd(*command(videos, full_disk / "data"))
    assert done.returncode == 1, done.stderr
    assert "no space is left on the device: free some, and rerun the same command" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("joined")
def test_a_retry_of_missing_and_broken_videos_writes_the_bytes_of_a_run_that_had_them_from_the_start(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    """The retries run as commands on a cluster; what comes before and after them, in this process, which is faster."""
    annotations = tmp_path / "list.csv"
    paths = sorted(str(path.relative_to(videos)) for path in videos.rglob("*.mp4"))
    annotations.write_text("path,label,split\n" + "".join(f"{p},{p.split('/')[0]},train\n" for p in paths))
    incomplete = tmp_path / "incomplete"
    for path in paths:
        (incomplete / path).parent.mkdir(parents=True, exist_ok=True)
        (incomplete / path).symlink_to(videos / path)
    missing, broken = incomplete / paths[3], incomplete / paths[8]
    missing.unlink()
    broken.unlink()
    broken.write_bytes(b"half a download")

    def run(out: Path, folder: Path, **options: Any) -> dict[str, Any]:
        return preprocess_in_process(folder, out, short_side=32, annotations=annotations, **options).document()

    def retry(*more: object) -> dict[str, Any]:
        words = ("--annotations", annotations, "--short-side", 32, "--retry-rejected", *more)
        done = run_lgd("preprocess", incomplete, "--out", out, *words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    out = tmp_path / "out"
    result = run(out, incomplete, streams=("rgb",))
    assert result["reasons"] == {"missing": 1, "unreadable": 1}
    assert result["rejected_file"] == str(out / "rejected.parquet")
    assert set(pq.read_table(result["rejected_file"]).column("path").to_pylist()) == {paths[3], paths[8]}
    assert open_dataset(out).summary["reasons"] == result["reasons"]
    before = files(out)
    broken.unlink()
    broken.symlink_to(videos / paths[8])
    result = retry("--streams", "rgb")
    assert (result["tried_again"], result["recovered"], result["rejected"]) == (2, 1, 1)
    missing.symlink_to(videos / paths[3])
    result = run(out, incomplete)  # the flow stream gets the same videos
    assert "1 video that was missing now exists: use --retry-rejected to add it" in capsys.readouterr().err
    assert result["rejected"] == 1
    assert files(out).keys() > before.keys()
    result = retry("--streams", "rgb")  # retries all streams
    assert (result["tried_again"], result["recovered"], result["rejected"]) == (1, 1, 0)
    assert result["rejected_file"] is None
    result = run(out, incomplete, retry_rejected=True)
    assert (result["tried_again"], result["shards_made"]) == (0, 0)
    run(tmp_path / "undisturbed", videos)
    assert_same_files(out, tmp_path / "undisturbed")
    assert run_lgd("inspect", out, "--verify").returncode == 0


RESULT = PreprocessResult(
    out="data",
    streams=["rgb", "flow"],
    manifest=75,
    videos=72,
    splits={"train": 60, "val": 12},
    unlabelled=0,
    rejected=3,
    reasons={"missing": 2, "unreadable": 1},
    rejected_file="data/rejected.parquet",
    classes=4,
    class_names=["bend", "jack", "wave1", "wave2"],
    annotations_format="class folders",
    shards_made=19,
    shards_there=0,
    tried_again=0,
    recovered=0,
    made=72,
    flow_pairs=3600,
    seconds={"compile": 0.0, "decode": 4.0, "flow": 30.0},
    work_s=20.0,
    wall_s=25.0,
    driver_mb=200.0,
)


def test_the_summary_accounts_for_every_video_and_names_the_classes_and_the_file_of_rejections():
    assert RESULT.lines() == [
        "data: 72 videos in 4 classes (bend, jack, wave1, wave2); streams: rgb, flow",
        "75 listed videos = 72 in the dataset + 3 rejected",
        "rejected videos by reason: missing 2, unreadable 1; each video is listed in data/rejected.parquet",
        "72 videos in 20.0 s (3.6 videos/s, 180 flow pairs/s); worker time in seconds: decode 4.0, flow 30.0",
    ]
    table = replace(RESULT, splits={"all": 72, "train1": 48, "test1": 24}).lines()
    assert table[2] == "videos by split: all 72, train1 48, test1 24"
    first = replace(RESULT, unlabelled=5).lines()[0]
    assert first == "data: 72 videos (5 without a label) in 4 classes (bend, jack, wave1, wave2); streams: rgb, flow"


def test_the_summary_of_many_classes_names_the_first_and_that_of_a_retry_counts_the_recovered():
    names = [f"class{number:03d}" for number in range(400)]
    changes: dict[str, Any] = {
        "manifest": 72,
        "rejected": 0,
        "reasons": {},
        "rejected_file": None,
        "made": 0,
        "tried_again": 3,
        "recovered": 3,
    }
    lines = replace(RESULT, classes=400, class_names=names, **changes).lines()
    assert lines == [
        "data: 72 videos in 400 classes (class000, class001, class002, class003, ... and 396 more); streams: rgb, flow",
        "72 listed videos = 72 in the dataset + 0 rejected",
        "rejected videos retried: 3; now in the dataset: 3",
    ]


def test_internal_errors_are_reported_and_are_a_failure_if_they_are_many():
    few = replace(RESULT, reasons={"missing": 2, "internal-error": 1})
    assert few.lines()[3] == (
        "1 video rejected because of an internal error, a mistake in lgd or in a library: please report the detail in "
        "the issues of the repository; --retry-rejected retries, for instance after an update"
    )
    assert few.failed == RESULT.failed == ""
    splits = {"train": 30, "val": 5}
    many = replace(RESULT, videos=35, splits=splits, rejected=40, reasons={"internal-error": 38, "missing": 2})
    assert str(many.lines()[3]).startswith("38 videos rejected because of an internal error")
    assert many.failed == "38 of 75 videos failed with an internal error: see data/rejected.parquet"


def test_a_dataset_from_before_the_choice_of_the_matrix_is_completed_with_the_matrix_that_it_was_begun_with(
    tmp_path: Path,
):
    videos, broken = tmp_path / "videos", tmp_path / "videos" / "a" / "broken.mp4"
    for name in ("a/1.mp4", "a/2.mp4", "b/1.mp4", "b/2.mp4"):
        (videos / name).parent.mkdir(parents=True, exist_ok=True)
        untagged = "testsrc2=s=1280x720:d=0.12,format=yuv420p,setparams=colorspace=unknown"
        ffmpeg("-f", "lavfi", "-i", untagged, *X264, videos / name)
    broken.write_bytes(b"text, not video" * 50)
    options: dict[str, Any] = {"short_side": 32, "val_fraction": 0.5}
    preprocess_in_process(videos, tmp_path / "old", untagged_matrix="bt601", streams=("rgb",), **options)
    assert "untagged_matrix" not in (tmp_path / "old" / "dataset.json").read_text()
    begun = files(tmp_path / "old")
    preprocess_in_process(videos, tmp_path / "old", streams=("rgb",), **options)
    assert files(tmp_path / "old") == begun

    shutil.copy(videos / "a" / "1.mp4", broken)
    preprocess_in_process(videos, tmp_path / "old", retry_rejected=True, **options)
    preprocess_in_process(videos, tmp_path / "bt601", untagged_matrix="bt601", **options)
    assert_same_files(tmp_path / "old", tmp_path / "bt601")

    preprocess_in_process(videos, tmp_path / "new", **options)
    assert {open_dataset(tmp_path / "new").specs[s].settings["untagged_matrix"] for s in ("rgb", "flow")} == {
        "bt709-hd"
    }
    shard = shard_name("rgb", "train-000000")
    assert (tmp_path / "new" / shard).read_bytes() != (tmp_path / "old" / shard).read_bytes()
    with pytest.raises(UsageError, match="--untagged-matrix bt601: the rgb stream of the dataset was created with "):
        preprocess_in_process(videos, tmp_path / "new", untagged_matrix="bt601", **options)


def test_the_limits_of_the_command_apply_to_new_shards_and_to_retried_videos(tmp_path: Path):
    videos, out = tmp_path / "videos", tmp_path / "data"
    for name, frames in (("a/short.mp4", 10), ("a/long.mp4", 40), ("b/short.mp4", 10)):
        (videos / name).parent.mkdir(parents=True, exist_ok=True)
        ffmpeg("-f", "lavfi", "-i", f"testsrc=s=64x48:r=25:d={frames / 25}", *X264, videos / name)
    options: dict[str, Any] = {"short_side": 32, "val_fraction": 0.5, "streams": ("rgb",)}

    def rejected(limits: LimitOptions, *, retry_rejected: bool) -> list[tuple[str, str]]:
        resources = PreprocessResources(limits=limits)
        preprocess_in_process(videos, out, retry_rejected=retry_rejected, resources=resources, **options)
        return [(row["path"], row["detail"]) for row in open_dataset(out).rejected().to_pylist()]

    for retry, limits in ((False, LimitOptions(max_frames=20)), (True, LimitOptions(max_seconds=1.2))):
        ((path, detail),) = rejected(limits, retry_rejected=retry)
        assert path == "a/long.mp4"
        frames = limits.frames(25.0)
        assert (
            detail == f"the video has more than {frames} frames, the limit: raise it with --max-frames or --max-seconds"
        )
    memory = 15 * 32 * 43 * 3 / (1 << 30)
    ((_, detail),) = rejected(LimitOptions(max_memory_gb=memory), retry_rejected=True)
    assert detail.startswith("its frames take more than ")
    assert detail.endswith(" GiB: raise the limit with --max-memory-gb")
    assert rejected(LimitOptions(max_frames=40), retry_rejected=True) == []
    assert open_dataset(out).summary["videos"] == 3
