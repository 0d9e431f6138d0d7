"""How many chunks an evaluation has, and how an evaluation that resumes finds out."""

from dataclasses import replace

import pytest

from lgd.pipeline.dataset.dataset import StreamSpec
from lgd.training.recipes import recipe_named
from lgd.training.scoring.chunk_plan import (
    CHUNK_FILE,
    CPU_WORK,
    GPU_WORK,
    begun_chunks,
    chunk_name,
    chunk_prefix,
    count_chunks,
    standard_chunks,
    video_work,
)
from lgd.training.scoring.protocol import TestProtocol

PAPER = recipe_named("kinetics400-rgb-r50")
SPEC = StreamSpec("rgb", {"short_side": 120})
IDENTITY = "0123456789abcdef"


def test_the_standard_number_of_chunks_is_that_of_version_0_1():
    videos = (1, 6, 16, 500, 1024, 1025, 19_800, 60_000)
    assert [standard_chunks(each) for each in videos] == [1, 6, 16, 16, 16, 17, 310, 938]


def test_the_work_of_a_video_is_views_times_frames_times_pixels():
    work = video_work(PAPER, TestProtocol(), SPEC)
    assert work == 15 * 16 * 120 * 160
    assert video_work(PAPER, TestProtocol(clips=30), SPEC) == 2 * work
    assert video_work(PAPER, TestProtocol(crops=3), SPEC) == 15 * 3 * 16 * 120 * 120
    long = replace(PAPER, model=replace(PAPER.model, frames=128))
    assert video_work(long, TestProtocol(), SPEC) == 8 * work
    assert video_work(PAPER, TestProtocol(), StreamSpec("rgb", {"short_side": 240})) == 4 * work


def test_chunks_have_half_a_minute_of_work_for_a_gpu_and_at_most_64_videos_on_cpus():
    work = video_work(PAPER, TestProtocol(), SPEC)
    assert count_chunks(19_800, work, gpus=0) == 310
    assert count_chunks(19_800, work, gpus=8) == 23
    assert 19_800 * work / 23 <= GPU_WORK
    # Heavy videos: fewer per chunk.
    assert count_chunks(1000, CPU_WORK / 10, gpus=0) == 100
    assert count_chunks(1000, GPU_WORK / 10, gpus=1) == 100
    assert count_chunks(1000, 100 * GPU_WORK, gpus=1) == 1000  # a video is not divided


@pytest.mark.parametrize("gpus", [1, 8, 64])
def test_every_gpu_has_two_chunks_if_there_are_enough_videos(gpus: int):
    assert count_chunks(10_000, 1.0, gpus=gpus) == 2 * gpus
    assert count_chunks(gpus, 1.0, gpus=gpus) == gpus
    assert count_chunks(1, 1.0, gpus=gpus) == 1


@pytest.mark.parametrize("chunks", [16, 2, 300])  # the standard number of 100 videos is 16
def test_an_evaluation_resumes_with_the_number_of_chunks_with_which_it_began(chunks: int):
    prefix = chunk_prefix(IDENTITY, chunks, videos=100)
    names = [chunk_name(prefix, chunk) for chunk in (0, 1)]
    assert all(CHUNK_FILE.fullmatch(name) for name in names)
    assert begun_chunks(names, IDENTITY, videos=100) == chunks
    assert begun_chunks([*names, "mine.txt"], "f" * 16, videos=100) is None
    assert begun_chunks(names, IDENTITY[:-1] + "e", videos=100) is None


def test_chunks_of_version_0_1_keep_their_names_and_the_most_complete_number_is_used():
    assert chunk_name(chunk_prefix(IDENTITY, 16, videos=100), 3) == f"{IDENTITY}-000003.parquet"
    names = [f"{IDENTITY}-{chunk:06d}.parquet" for chunk in range(3)]
    assert begun_chunks(names, IDENTITY, videos=100) == 16
    assert begun_chunks([*names, f"{IDENTITY}-000004-000001.parquet"], IDENTITY, videos=100) == 4
    assert begun_chunks([*names, f"{IDENTITY}-000100-000001.parquet"], IDENTITY, videos=100) == 16
