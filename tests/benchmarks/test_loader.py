"""The result of `lgd bench loader`; all its loaders load the same clips. Times are not tested."""

import importlib.util
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from lgd.benchmarks.bare_dali import decoded
from lgd.benchmarks.loader import CASES, LOADERS, LoaderBenchmark, Round, job_of, measure, summarize
from lgd.benchmarks.loader_baselines import ShardClips, VideoClips
from lgd.benchmarks.loader_child import Case, LoaderJob, decode_job, encode_job
from lgd.benchmarks.loader_claims import claims_not_met
from lgd.benchmarks.video_readers import READERS, ffmpeg_for_torchcodec, read_with_pyav
from lgd.clusters.testbed.processes import run_lgd
from lgd.pipeline.console.errors import UserError
from lgd.pipeline.dataset.dataset import Dataset
from lgd.pipeline.loading.loader import train_loader
from lgd.pipeline.loading.transform import Transform

TRANSFORM = Transform(crop=48)


def benchmark_of(rounds: list[Round], errors: dict[str, float]) -> LoaderBenchmark:
    return summarize(rounds, errors, videos=8, codecs={"h264": 7, "vp9": 1}, short_side=120, crop=112)


def measured(ours: float, s3: float | None = None) -> Round:
    """Return a round in clips per second: PyAV 10 and 20, OpenCV 60 and 50 (with 0 and 1 workers), DALI 100.

    torchcodec is not measured."""

    def cases(variants: dict[str, float]) -> dict:
        return {
            name: {variant: {"clips_per_s": speed, "taken_share": 0.02} for variant, speed in variants.items()}
            for name in CASES
        }

    by_loader = {
        "ours": cases({"ours": ours}),
        "pyav": cases({"0 workers": 10, "1 workers": 20}),
        "opencv_video": cases({"0 workers": 30, "1 workers": 25}),
        "opencv": cases({"0 workers": 60, "1 workers": 50}),
        "dali": cases({"dali": 100}),
    }
    by_loader["ours"]["frames16"]["ours"] |= {"bytes_read": 30, "bytes_used": 20}
    del by_loader["pyav"]["flow"], by_loader["opencv_video"]["flow"]
    if s3 is not None:
        by_loader["s3"] = cases({"ours": s3})
    return by_loader


def test_numbers_follow_from_the_rounds():
    rounds = [measured(80, 40), measured(90, 30), measured(200, 50)]
    benchmark = benchmark_of(rounds, {"rgb": 0.3, "flow": 0.2})
    result = benchmark.document()
    assert result["clips_per_s_per_core"] == {"ours": 90, "pyav": 20, "opencv_video": 30, "opencv": 60, "dali": 100}
    assert result["ratios"] == {
        "ours_over_pyav": 4.5,
        "ours_over_opencv_video": 3,
        "ours_over_opencv": 1.5,
        "ours_over_dali": 0.9,
    }
    assert result["dataloader"] == {"pyav": "1 workers", "opencv_video": "0 workers", "opencv": "0 workers"}
    assert result["bytes_read_per_byte_used"] == 1.5
    assert result["flow"]["clips_per_s_per_core"].keys() == {"ours", "opencv", "dali"}
    assert result["flow"]["mean_error_of_255"] == 0.2
    assert result["s3"] == {"clips_per_s_per_core": 40, "ratio_to_local": pytest.approx(1 / 3)}
    assert result["rounds"] == 3
    assert result["failed"] == [
        "4.5 times as fast as PyAV (required: 8)",
        "3.0 times as fast as opencv_video (required: 4)",
    ]
    assert benchmark.failed == f"claims not met: {'; '.join(result['failed'])}"
    assert "not_measured" not in result
    assert "s3" not in benchmark_of([measured(80)], {"rgb": 0.3, "flow": 0.2}).document()


def test_each_claim_is_judged():
    ratios = {"ours_over_pyav": 8, "ours_over_opencv_video": 4, "ours_over_torchcodec": 4, "ours_over_dali": 0.85}
    assert claims_not_met(ratios, {"ours_over_opencv": 1.3}, mean_error=0.99) == []
    worse = {**ratios, "ours_over_torchcodec": 3.9, "ours_over_dali": 0.84}
    assert claims_not_met(worse, {"ours_over_opencv": 1.29}, mean_error=1.0) == [
        "3.9 times as fast as torchcodec (required: 4)",
        "1.29 times as fast as OpenCV for flow (required: 1.3)",
        "84% of the speed of bare DALI (required: 85%)",
        "mean error of 1.00 of 255 compared with OpenCV's decoder (required: below 1)",
    ]


def test_the_lines_name_what_was_measured():
    console = Console(file=io.StringIO(), width=200)
    rounds = [measured(80, 40)]
    for numbers in rounds[0]["dali"]["frames16"].values():
        numbers["taken_share"] = 0.4
    for line in benchmark_of(rounds, {"rgb": 0.3, "flow": 0.2}).lines():
        console.print(line)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for shown in ("8 videos (7 h264, 1 vp9), short side 120", "128 frames", "0.50 times the local", "up to 40%"):
        assert shown in text


@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_opencv_loads_the_same_clips_as_our_loader(dataset: Dataset, stream: str):
    clips = ShardClips(dataset.storage.address, stream, 16, transform=TRANSFORM)
    for batch in train_loader(dataset, stream, 4, steps=range(2), transform=TRANSFORM):
        for video, position in zip(batch.video, batch.position, strict=True):
            assert (video - clips[position]).abs().mean() < 1 / 57


@pytest.mark.parametrize("reader", ["pyav", "opencv_video"])
def test_readers_load_clips_from_the_videos(dataset: Dataset, videos: Path, reader: str):
    address = dataset.storage.address
    clips = VideoClips(address, str(videos), 16, short_side=64, transform=TRANSFORM, reader=reader)
    shards = ShardClips(address, "rgb", 16, transform=TRANSFORM)
    for position in range(4):
        assert clips[position].shape == (3, 16, 48, 48)
        # Different resizing and no JPEG, but the same position in the same video.
        assert (clips[position] - shards[position]).abs().mean() < 0.2


def test_torchcodec_reads_the_same_clip_as_pyav(videos: Path):
    """In a process of its own, which finds FFmpeg."""
    path = videos / "up" / "up_000.mp4"
    code = (
        "import sys, numpy; from pathlib import Path; from lgd.benchmarks.video_readers import *;"
        "clips = [READERS[name](Path(sys.argv[1]), 0.5, 16, short_side=64) for name in ('pyav', 'torchcodec')];"
        "print(clips[1].shape, numpy.abs(clips[0].astype(float) - clips[1]).mean() < 4)"
    )
    with ffmpeg_for_torchcodec():
        done = subprocess.run(
            [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False, env=dict(os.environ)
        )
    if "torchcodec" in done.stderr and importlib.util.find_spec("torchcodec") is None:
        pytest.skip("needs torchcodec")
    assert done.stdout.strip() == "(16, 64, 80, 3) True", done.stderr[-500:]


def test_pyav_seeks_to_the_start_and_repeats_short_videos(videos: Path):
    path = videos / "up" / "up_000.mp4"
    complete = read_with_pyav(path, 0, 40, short_side=64)
    assert complete.shape == (40, 64, 80, 3)
    assert (read_with_pyav(path, 1, 16, short_side=64) == complete[24:]).all()
    assert (read_with_pyav(path, 0, 50, short_side=64)[40:] == complete[:10]).all()


@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_bare_dali_decodes_batches(dataset: Dataset, stream: str):
    batches = decoded(ShardClips(dataset.storage.address, stream, 16, transform=TRANSFORM), 2)
    assert [next(batches) for _ in range(6)] == [2] * 6


def test_a_loader_that_cannot_be_measured_is_a_user_error(tmp_path: Path):
    job = LoaderJob("ours", str(tmp_path / "none"), "", {"frames16": Case("rgb", 16, 2)}, 64, 48, 0.01, 1)
    assert decode_job(encode_job(job)) == job
    with pytest.raises(UserError, match=r"ours could not be measured: .*dataset .* does not exist"):
        measure(job)


def test_without_pyav_the_message_says_how_to_install_it(videos: Path, monkeypatch: pytest.MonkeyPatch):
    from lgd.benchmarks.loader import run

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install av"):
        run(videos, 120, 1, rounds=1, seconds=0.01, s3=False)


def test_pyav_does_not_load_flow_and_all_loaders_load_every_video(dataset: Dataset):
    jobs = {
        name: job_of(name, "", Path(), short_side=120, crop=112, seconds=1.0, dataset=dataset)
        for name in (*LOADERS, "s3")
    }
    for reader in READERS:
        assert jobs[reader].cases.keys() == {"frames16", "frames128"}
    assert jobs["s3"].loader == "ours"
    assert {job.clips for job in jobs.values()} == {18}


@pytest.mark.cluster
def test_the_command_prints_one_document_and_lists_the_claims_not_met(videos: Path):
    done = run_lgd("bench", "loader", videos, "--limit", 2, "--rounds", 1, "--seconds", 0.01, "--json")
    result = json.loads(done.stdout)
    assert done.returncode == bool(result["failed"]), done.stderr
    assert (result["videos"], result["codecs"]) == (2, {"h264": 2})
    measured = set(LOADERS) - ({"torchcodec"} if "not_measured" in result else set())
    assert result["clips_per_s_per_core"].keys() == measured
    assert result["ratios"].keys() == {f"ours_over_{name}" for name in measured - {"ours"}}
    assert result["bytes_read_per_byte_used"] == 1
    assert 0 <= result["mean_error_of_255"] < 1
    assert result["frames128"]["clips_per_s_per_core"].keys() == measured
    assert "round 1 of 1, dali" in done.stderr
