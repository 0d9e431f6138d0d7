"""The document of `lgd bench loader`, and that its loaders make the same clips. Times are never looked at."""

import importlib.util
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from lgd.benchmarks.bare_dali import decoded
from lgd.benchmarks.loader import CASES, LOADERS, broken_claims, document, job_of, measure_apart, report
from lgd.benchmarks.loader_child import Case, LoaderJob, decoded_job, encoded
from lgd.benchmarks.loader_baselines import ShardClips, VideoClips, read_clip
from lgd.pipeline.console.errors import UserError
from lgd.pipeline.dataset.dataset import Dataset
from lgd.pipeline.loading.loader import train_loader
from lgd.pipeline.loading.transform import Transform
from tests.conftest import run_lgd

TRANSFORM = Transform(crop=48)
ABOUT = {"videos": 8, "codecs": {"h264": 7, "vp9": 1}, "short_side": 120, "crop": 112, "rounds": 3}


def measured(ours: float, s3: float | None = None) -> dict:
    """A round, by clips a second: PyAV 10 and 20, OpenCV 60 and 50 (with no and one worker), DALI 100."""

    def cases(ways: dict[str, float]) -> dict:
        return {
            name: {way: {"clips_per_s": speed, "taken_share": 0.02} for way, speed in ways.items()} for name in CASES
        }

    done = {
        "ours": cases({"ours": ours}),
        "pyav": cases({"0 workers": 10, "1 workers": 20}),
        "opencv": cases({"0 workers": 60, "1 workers": 50}),
        "dali": cases({"dali": 100}),
    }
    done["ours"]["frames16"]["ours"] |= {"bytes_read": 30, "bytes_used": 20}
    del done["pyav"]["flow"]
    if s3 is not None:
        done["s3"] = cases({"ours": s3})
    return done


def test_numbers_follow_from_the_rounds():
    rounds = [measured(80, 40), measured(90, 30), measured(200, 50)]
    result = document(ABOUT, rounds, {"rgb": 0.3, "flow": 0.2})
    assert result["clips_per_s_per_core"] == {"ours": 90, "pyav": 20, "opencv": 60, "dali": 100}
    assert result["ratios"] == {"ours_over_pyav": 4.5, "ours_over_opencv": 1.5, "ours_over_dali": 0.9}
    assert result["dataloader"] == {"pyav": "1 workers", "opencv": "0 workers"}
    assert result["bytes_read_per_byte_used"] == 1.5
    assert result["flow"]["clips_per_s_per_core"].keys() == {"ours", "opencv", "dali"}
    assert result["flow"]["mean_error_of_255"] == 0.2
    assert result["s3"] == {"clips_per_s_per_core": 40, "ratio_to_local": pytest.approx(1 / 3)}
    assert result["failed"] == ["4.5 times PyAV's speed, not 8"]


def test_each_claim_is_judged():
    holding = {"ratios": {"ours_over_pyav": 8, "ours_over_dali": 0.85}, "mean_error_of_255": 0.99}
    assert broken_claims(holding) == []
    slow = {"ratios": {"ours_over_pyav": 8, "ours_over_dali": 0.84}, "mean_error_of_255": 1.0}
    assert broken_claims(slow) == [
        "84% of bare DALI's speed, not 85%",
        "mean error 1.00 of 255 against OpenCV's decoder",
    ]


def test_the_report_says_what_was_measured():
    console = Console(file=io.StringIO(), width=200)
    rounds = [measured(80, 40)]
    for way in rounds[0]["dali"]["frames16"].values():
        way["taken_share"] = 0.4
    for line in report(document(ABOUT, rounds, {"rgb": 0.3, "flow": 0.2})):
        console.print(line)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for shown in ("8 videos (7 h264, 1 vp9), short side 120", "128 frames", "0.50 times the local", "up to 40%"):
        assert shown in text


@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_opencv_makes_the_clips_that_ours_makes(dataset: Dataset, stream: str):
    clips = ShardClips(dataset.storage.address, stream, 16, transform=TRANSFORM)
    for batch in train_loader(dataset, stream, 4, steps=range(2), transform=TRANSFORM):
        for video, position in zip(batch.video, batch.position, strict=True):
            assert (video - clips[position]).abs().mean() < 1 / 57


def test_pyav_makes_clips_of_the_videos(dataset: Dataset, videos: Path):
    clips = VideoClips(dataset.storage.address, str(videos), 16, short_side=64, transform=TRANSFORM)
    shards = ShardClips(dataset.storage.address, "rgb", 16, transform=TRANSFORM)
    for position in range(4):
        assert clips[position].shape == (3, 16, 48, 48)
        # Other resizing and no JPEG between: but the same place and time of the same video.
        assert (clips[position] - shards[position]).abs().mean() < 0.2


def test_pyav_seeks_to_the_start_and_loops_what_is_too_short(videos: Path):
    path = videos / "up" / "up_000.mp4"
    whole = read_clip(path, 0, 40, short_side=64)
    assert whole.shape == (40, 64, 80, 3)
    assert (read_clip(path, 1, 16, short_side=64) == whole[24:]).all()
    assert (read_clip(path, 0, 50, short_side=64)[40:] == whole[:10]).all()


@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_bare_dali_decodes_batches(dataset: Dataset, stream: str):
    batches = decoded(ShardClips(dataset.storage.address, stream, 16, transform=TRANSFORM), 2)
    assert [next(batches) for _ in range(6)] == [2] * 6


def test_a_loader_that_cannot_be_measured_says_why(tmp_path: Path):
    job = LoaderJob("ours", str(tmp_path / "none"), "", {"frames16": Case("rgb", 16, 2)}, 64, 48, 0.01, 1)
    assert decoded_job(encoded(job)) == job
    with pytest.raises(UserError, match=r"ours could not be measured: .*dataset .* does not exist"):
        measure_apart(job)


def test_without_pyav_the_bench_says_what_adds_it(videos: Path, monkeypatch: pytest.MonkeyPatch):
    from lgd.benchmarks.loader import run

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install av"):
        run(videos, 120, 1, rounds=1, seconds=0.01, s3=False)


def test_pyav_loads_no_flow_and_every_video_is_loaded(dataset: Dataset):
    jobs = {
        name: job_of(name, "", Path(), short_side=120, crop=112, seconds=1.0, dataset=dataset)
        for name in (*LOADERS, "s3")
    }
    assert jobs["pyav"].cases.keys() == {"frames16", "frames128"}
    assert jobs["s3"].loader == "ours"
    assert {job.clips for job in jobs.values()} == {18}


@pytest.mark.cluster
def test_the_verb_prints_one_document_and_lists_what_does_not_hold(videos: Path):
    done = run_lgd("bench", "loader", videos, "--limit", 2, "--rounds", 1, "--seconds", 0.01, "--json")
    result = json.loads(done.stdout)
    assert done.returncode == bool(result["failed"]), done.stderr
    assert (result["videos"], result["codecs"]) == (2, {"h264": 2})
    assert result["clips_per_s_per_core"].keys() == set(LOADERS)
    assert result["ratios"].keys() == {"ours_over_pyav", "ours_over_opencv", "ours_over_dali"}
    assert result["bytes_read_per_byte_used"] == 1
    assert 0 <= result["mean_error_of_255"] < 1
    assert result["frames128"]["clips_per_s_per_core"].keys() == set(LOADERS)
    assert "round 1 of 1, dali" in done.stderr
