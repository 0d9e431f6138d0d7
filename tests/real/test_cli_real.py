"""Commands on real videos."""

import csv
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from lgd.clusters.testbed.processes import run_lgd
from tests.support.user_folder import CONSOLE_SCRIPT, UserFolder


@pytest.mark.cluster
def test_every_labelled_video_and_clip_is_in_the_dataset_or_rejected_with_a_reason(data: Path, tmp_path: Path):
    """The tables together contain each file of the list exactly once."""
    folders = ("labelled", "clips", "broken")
    paths = sorted(p.relative_to(data) for f in folders for p in (data / f).rglob("*") if p.is_file())
    listing = tmp_path / "list.csv"
    with listing.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        writer.writerows([path, path.parts[1] if len(path.parts) > 2 else path.parts[0]] for path in paths)
        writer.writerow(["labelled/weizmann4/bend/s99.avi", "weizmann4"])
    out = tmp_path / "data"
    words = ("--annotations", listing, "--streams", "rgb", "--short-side", 32)
    done = run_lgd("preprocess", data, "--out", out, *words, "--json", timeout_s=500)
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    videos, rejected = pq.read_table(out / "videos.parquet"), pq.read_table(out / "rejected.parquet")
    listed = videos.column("path").to_pylist() + rejected.column("path").to_pylist()
    assert sorted(listed) == sorted([*map(str, paths), "labelled/weizmann4/bend/s99.avi"])
    assert (outcome["videos"], outcome["rejected"]) == (videos.num_rows, rejected.num_rows)
    reasons = dict(zip(rejected.column("path").to_pylist(), rejected.column("reason").to_pylist(), strict=True))
    assert reasons == {
        "broken/bitflips300.avi": "decoder-error",
        "broken/empty.mp4": "unreadable",
        "broken/text_as_video.mp4": "unreadable",
        "broken/truncated50.avi": "truncated",
        "broken/truncated50.mp4": "truncated",
        "labelled/weizmann4/bend/s99.avi": "missing",
    }
    done = run_lgd("inspect", out, "--verify", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rejected"] == {"decoder-error": 1, "missing": 1, "truncated": 2, "unreadable": 2}


@pytest.fixture(scope="module")
def weizmann(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two actions of three subjects."""
    folder = tmp_path_factory.mktemp("weizmann")
    for action in ("bend", "jack"):
        (folder / action).mkdir()
        for path in (data / "labelled" / "weizmann4" / action).iterdir():
            if path.name[:3] in ("s01", "s02", "s03"):
                (folder / action / path.name).symlink_to(path)
    return folder


@pytest.mark.cluster
def test_the_demo_runs_on_real_videos_and_tells_two_actions_of_a_new_person_apart(weizmann: Path, tmp_path: Path):
    """In a folder with modules of the names of our folders and dependencies, none of which the stages may execute."""
    user = UserFolder(tmp_path)
    out = user.folder / "demo"
    words = ("--videos", weizmann, "--group", r"s\d+", "--out", "demo", "--json")
    done = user.run(CONSOLE_SCRIPT, "demo", *words, timeout_s=500)
    result = json.loads(done.stdout)
    assert {"rgb", "flow", "fused", "seconds", "out", "report"} == result.keys()
    for command in ("preprocess", "train nano-rgb", "train nano-flow", "evaluate", "fuse", "report"):
        assert f"$ lgd {command}" in done.stderr
    assert result["fused"]["videos"] == 4
    assert result["fused"]["top1"] >= 0.75
    assert "data:image/jpeg" in (user.folder / result["report"]).read_text(encoding="utf-8")
    splits = pq.read_table(out / "data" / "videos.parquet", columns=["path", "split"]).to_pylist()
    subjects = {
        split: {row["path"].split("/")[1][:3] for row in splits if row["split"] == split} for split in ("train", "val")
    }
    assert len(subjects["val"]) == 1
    assert not subjects["train"] & subjects["val"]
