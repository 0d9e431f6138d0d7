"""The whole preprocessing job as a user runs it: killed, resumed, extended, refused."""

from pathlib import Path

import pytest

from pipeline.dataset import open_dataset, shard_name
from tests.conftest import run_lgd, run_lgd_until


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
    done = run_lgd(*command(videos, out, "--streams", "rgb", "--workers", 1))
    assert done.returncode == 0, done.stderr
    assert "shards are there already" in done.stderr
    assert open_dataset(out).streams == ["rgb"]
    before = files(rgb)

    run_lgd_until(lambda: len(list(flow.glob(".parts/train-*.arrow"))) >= 1, *command(videos, out, "--streams", "flow"))
    assert open_dataset(out).streams == ["rgb"]
    done = run_lgd(*command(videos, out, "--workers", 1))
    assert done.returncode == 0, done.stderr
    assert files(rgb) == before
    ours, undisturbed = files(out), files(dataset_folder)
    assert ours.keys() == undisturbed.keys()
    assert [name for name in ours if ours[name] != undisturbed[name]] == []


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
        (("--tvl1.warps", 3), "made by another recipe (tvl1.warps: 5 -> 3)"),
        (("--val-fraction", 0.5), "made from another list of videos (labels, splits or times differ)"),
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
    assert "1 are new, such as" in done.stderr
    assert "1 are gone, such as" in done.stderr


def test_a_full_disk_ends_in_one_line_and_the_job_goes_on_when_there_is_room(videos: Path, full_disk: Path):
    done = run_lgd(*command(videos, full_disk / "data"))
    assert done.returncode == 1, done.stderr
    assert "no space is left on the device: free some, and run the same command again" in done.stderr
    assert "Traceback" not in done.stderr
