"""The whole preprocessing job as a user runs it: killed, resumed, extended, refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from lgd.clusters.testbed.processes import run_lgd, run_lgd_until
from lgd.pipeline.dataset.dataset import open_dataset, shard_name


def command(videos: Path, out: Path, *more: object) -> tuple[object, ...]:
    """As the fixture `dataset_folder` was made."""
    return ("preprocess", videos, "--out", out, "--short-side", 64, "--val-fraction", 0.34, *more)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_killed_resumed_on_one_worker_and_extended_by_a_stream_the_bytes_are_those_of_an_undisturbed_run(
    videos: Path, dataset_folder: Path, tmp_path: Path
):
    out = tmp_path / "data"
    rgb, flow = out / "rgb", out / "flow"
    run_lgd_until(lambda: len(list(rgb.glob(".parts/train-*.arrow"))) >= 2, *command(videos, out, "--streams", "rgb"))
    assert not (rgb / "index.arrow").exists()
    done = run_lgd(*command(videos, out, "--streams", "rgb", "--num-workers", 1))
    assert done.returncode == 0, done.stderr
    assert "shards are there already" in done.stderr
    assert open_dataset(out).streams == ["rgb"]
    before = files(rgb)

    run_lgd_until(lambda: len(list(flow.glob(".parts/train-*.arrow"))) >= 1, *command(videos, out, "--streams", "flow"))
    assert open_dataset(out).streams == ["rgb"]
    done = run_lgd(*command(videos, out, "--num-workers", 1))
    assert done.returncode == 0, done.stderr
    assert files(rgb) == before
    ours, undisturbed = files(out), files(dataset_folder)
    assert ours.keys() == undisturbed.keys()
    assert [name for name in ours if ours[name] != undisturbed[name]] == []


@pytest.mark.usefixtures("joined")
def test_a_finished_dataset_is_left_alone_and_a_lost_shard_made_again(
    videos: Path, dataset_folder: Path, tmp_path: Path
):
    import shutil

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
        (("--fps", 12), "made by another recipe (fps: 25.0 -> 12.0)"),
        (("--flow.tvl1.warps", 3), "made by another recipe (tvl1.warps: 5 -> 3)"),
        (("--val-fraction", 0.5), "made from another list of videos (labels, splits, files or times of"),
    ],
)
def test_other_options_for_the_same_dataset_are_refused_with_what_differs(
    videos: Path, dataset_folder: Path, options: tuple[object, ...], message: str
):
    before = files(dataset_folder)
    done = run_lgd(*command(videos, dataset_folder, *options))
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert files(dataset_folder) == before


def test_other_videos_for_the_same_dataset_are_refused_by_name(videos: Path, dataset_folder: Path, tmp_path: Path):
    import shutil

    more = tmp_path / "videos"
    shutil.copytree(videos, more)
    (more / "up" / "up_002.mp4").rename(more / "up" / "up_new.mp4")
    done = run_lgd(*command(more, dataset_folder))
    assert done.returncode == 1
    assert "1 is new, such as up-up_new" in done.stderr
    assert "1 is gone, such as up-up_002" in done.stderr


@pytest.mark.usefixtures("joined")
def test_a_full_disk_ends_in_one_line_and_the_job_goes_on_when_there_is_room(videos: Path, full_disk: Path):
    done = run_lgd(*command(videos, full_disk / "data"))
    assert done.returncode == 1, done.stderr
    assert "no space is left on the device: free some, and run the same command again" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("joined")
def test_what_was_missing_or_broken_is_tried_again_on_demand_and_the_bytes_are_those_of_a_run_that_had_it_at_once(
    videos: Path, dataset_folder: Path, tmp_path: Path
):
    listing = tmp_path / "list.csv"
    paths = sorted(str(path.relative_to(videos)) for path in videos.rglob("*.mp4"))
    listing.write_text("path,label,split\n" + "".join(f"{p},{p.split('/')[0]},train\n" for p in paths))
    some = tmp_path / "some"
    for path in paths:
        (some / path).parent.mkdir(parents=True, exist_ok=True)
        (some / path).symlink_to(videos / path)
    missing, broken = some / paths[3], some / paths[8]
    missing.unlink()
    broken.unlink()
    broken.write_bytes(b"half a download")
    options = ("--annotations", listing, "--short-side", 32)

    def run(out: Path, folder: Path, *more: object) -> dict[str, Any]:
        done = run_lgd("preprocess", folder, "--out", out, *options, *more, "--json")
        assert done.returncode == 0, done.stderr
        said.append(done.stderr)
        return json.loads(done.stdout)

    said: list[str] = []
    out = tmp_path / "out"
    outcome = run(out, some, "--streams", "rgb")
    assert outcome["reasons"] == {"missing": 1, "unreadable": 1}
    assert open_dataset(out).summary["reasons"] == outcome["reasons"]
    before = files(out)
    broken.unlink()
    broken.symlink_to(videos / paths[8])
    outcome = run(out, some, "--streams", "rgb", "--retry-rejected")
    assert (outcome["tried_again"], outcome["recovered"], outcome["rejected"]) == (2, 1, 1)
    missing.symlink_to(videos / paths[3])
    outcome = run(out, some)  # flow is made of the same videos
    assert "1 videos that were missing are there now: --retry-rejected takes them in" in said[-1]
    assert outcome["rejected"] == 1
    assert files(out).keys() > before.keys()
    outcome = run(out, some, "--streams", "rgb", "--retry-rejected")  # and in all streams
    assert (outcome["tried_again"], outcome["recovered"], outcome["rejected"]) == (1, 1, 0)
    outcome = run(out, some, "--retry-rejected")
    assert (outcome["tried_again"], outcome["shards_made"]) == (0, 0)
    run(tmp_path / "whole", videos)
    ours, at_once = files(out), files(tmp_path / "whole")
    assert ours.keys() == at_once.keys()
    assert [name for name in ours if ours[name] != at_once[name]] == []
    assert run_lgd("inspect", out, "--verify").returncode == 0
