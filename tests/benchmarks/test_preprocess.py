"""The result of `lgd bench preprocess`. Times are not tested: they depend on the machine."""

import io
import json
import os
from pathlib import Path

import pytest
from rich.console import Console

from lgd.benchmarks.preprocess import KINETICS, JobRun, Output, Sample, measure_sample, select_videos, summarize
from lgd.clusters.testbed.processes import run_lgd
from lgd.pipeline.console.errors import UserError
from lgd.preprocessing.annotations.read import read_manifest
from lgd.preprocessing.settings import Settings

RUNS = [
    JobRun(1, 10, {"decode": 2, "flow": 6, "jpeg": 1, "write": 0}, 12),
    JobRun(2, 5, {"decode": 9, "flow": 9, "jpeg": 9, "write": 9}, 10),
    JobRun(2, 8, {"decode": 9, "flow": 9, "jpeg": 9, "write": 9}, 16),
    JobRun(1, 12, {"decode": 2, "flow": 6, "jpeg": 1, "write": 2}, 15),
]
OUTPUT = Output(shards=2, videos=4, frames=104, rejected=1)
PARTS = {"start": 0.125, "decode": 0.5, "resize": 0.25, "pipe": 0.125}
SAMPLE = Sample(videos=2, decode_parts=PARTS, opencv_s=0.5, ours_s=0.1)


def test_numbers_follow_from_the_runs():
    result = summarize(RUNS, OUTPUT, SAMPLE, settings=Settings(fps=26)).document()
    decoding = {part: share * 4 / 20 for part, share in PARTS.items()}
    assert result["stages"] == decoding | {"flow": 12 / 20, "jpeg": 2 / 20, "write": 2 / 20}
    assert result["decode_and_flow"] == pytest.approx(16 / 20)
    assert result["outside_stages"] == pytest.approx(2 / 22)
    assert result["two_workers_over_one"] == pytest.approx((10 / 5 + 12 / 8) / 2)
    assert result["busy_cores"] == pytest.approx((12 / 10 + 15 / 12) / 2)
    assert result["max_two_over_one"] == pytest.approx(min(os.cpu_count() / result["busy_cores"], 2))
    assert result["videos_per_s"] == pytest.approx(4 / 6.5)
    assert result["flow_pairs_per_s"] == pytest.approx(100 / 6.5)
    assert result["source_s"] == 4
    assert result["worker_s_a_source_s"] == pytest.approx(10 / 4)
    k400 = result["core_hours"]["kinetics400"]
    assert k400["clips"] == 246_245 + 19_906
    assert k400["ours"] == pytest.approx(k400["clips"] * 10 * 10 / 4 / 3600)
    assert k400["with_opencv_tvl1"] == pytest.approx(k400["clips"] * 10 * (10 + 100 * 0.4) / 4 / 3600)
    assert result["core_hours"].keys() == KINETICS.keys()


def test_the_lines_include_the_assumptions_of_the_projection():
    console = Console(file=io.StringIO(), width=200)
    for line in summarize(RUNS, OUTPUT, SAMPLE, settings=Settings()).lines():
        console.print(line)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for shown in ("1 rejected", "resize", "246,245 train + 19,906 val clips", "25 frames per second, short side 120"):
        assert shown in text


def test_videos_are_selected_evenly_and_are_in_one_split(videos: Path):
    manifest = select_videos(read_manifest(videos), 6)
    assert len(manifest.videos) == 6
    assert {video.split for video in manifest.videos} == {"train"}
    assert len({video.key for video in manifest.videos}) == 6
    assert len(select_videos(manifest, 100).videos) == 6


def test_a_sample_skips_videos_that_cannot_be_decoded(videos: Path, tmp_path: Path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"text, not video" * 50)
    sample = measure_sample([broken, videos / "up" / "up_000.mp4"], Settings(short_side=32))
    assert sample.videos == 1
    assert sample.decode_parts.keys() == PARTS.keys()
    assert all(share >= 0 for share in sample.decode_parts.values())
    assert sum(sample.decode_parts.values()) == pytest.approx(1)
    with pytest.raises(UserError, match="none of the 1 sampled videos can be decoded"):
        measure_sample([broken], Settings(short_side=32))


@pytest.mark.cluster
def test_the_command_runs_the_job_and_prints_one_document(videos: Path):
    done = run_lgd("bench", "preprocess", videos, "--short-side", 32, "--limit", 6, "--rounds", 1, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["videos"], result["rejected"], result["source_s"]) == (6, 0, 6 * 40 / 25)
    assert result["shards"] == 2
    assert result["stages"].keys() == {*PARTS, "flow", "jpeg", "write"}
    assert sum(result["stages"].values()) == pytest.approx(1)
    assert {workers: len(walls) for workers, walls in result["wall_s"].items()} == {"1": 1, "2": 1}
    assert result["flow_pairs_per_s"] == pytest.approx(result["videos_per_s"] * 39)
    assert "round 1 of 1, workers 2" in done.stderr
