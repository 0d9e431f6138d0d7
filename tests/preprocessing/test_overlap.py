"""A task with several CPUs decodes the next video while this one is encoded."""

import threading
from typing import Any

import cv2
import numpy as np
import pytest

from lgd.preprocessing.annotations.manifest import Video
from lgd.preprocessing.counters import ShardCounters
from lgd.preprocessing.overlap import Overlap
from lgd.preprocessing.video.decode import Frames
from lgd.preprocessing.video.rejections import Rejected

VIDEOS = [Video(f"v{number}", f"v{number}.mp4", 0, "up", "train") for number in range(3)]
WAIT_S = 10.0


class Decoder:
    """Decodes no video, but remembers in which thread each was asked for."""

    def __init__(self, *rejected: str):
        self.rejected = rejected
        self.threads: dict[str, list[str]] = {}
        self.started = {video.key: threading.Event() for video in VIDEOS}

    def __call__(self, video: Video) -> Frames:
        self.threads.setdefault(video.key, []).append(threading.current_thread().name)
        self.started[video.key].set()
        if video.key in self.rejected:
            raise Rejected("unreadable", video.key)
        return frames_of(video)


def frames_of(video: Video) -> Frames:
    """Frames that name their video."""
    return Frames(np.zeros((1, 2, 2, 3), np.uint8), 25.0, 2, 2, 0.0, None, codec=video.key, damaged=0)


@pytest.mark.parametrize("cpus", [1.0, 1.5])
def test_a_task_with_one_cpu_does_one_thing_after_the_other(cpus: float):
    decode, counters = Decoder(), ShardCounters()
    with Overlap(cpus, VIDEOS) as overlap:
        assert [overlap.frames(video, decode, counters).codec for video in VIDEOS] == ["v0", "v1", "v2"]
    assert decode.threads == {video.key: ["MainThread"] for video in VIDEOS}


def test_the_next_video_is_decoded_while_this_one_is_encoded():
    decode, counters = Decoder(), ShardCounters()
    with Overlap(2, VIDEOS) as overlap:
        for number, video in enumerate(VIDEOS):
            assert overlap.frames(video, decode, counters).codec == video.key
            assert all(decode.started[following.key].wait(WAIT_S) for following in VIDEOS[number + 1 : number + 2])
            assert not any(
                decode.started[later.key].is_set() for later in VIDEOS[number + 2 :]
            )  # only one is in memory
    assert [len(threads) for threads in decode.threads.values()] == [1, 1, 1]
    assert counters.seconds["decode"] > 0


def test_a_video_that_cannot_be_decoded_is_rejected_in_its_turn_and_decoded_again_on_request():
    decode, counters = Decoder("v1"), ShardCounters()
    with Overlap(2, VIDEOS) as overlap:
        overlap.frames(VIDEOS[0], decode, counters)
        for _ in range(2):
            with pytest.raises(Rejected, match="v1"):
                overlap.frames(VIDEOS[1], decode, counters)
        assert overlap.frames(VIDEOS[2], decode, counters).codec == "v2"
    assert {key: len(threads) for key, threads in decode.threads.items()} == {"v0": 1, "v1": 2, "v2": 1}


def test_a_video_that_is_not_in_the_list_is_decoded_when_it_is_asked_for():
    with Overlap(2, VIDEOS) as overlap:
        known = Video("known", "known.y4m", None, None, "known")
        assert overlap.frames(known, frames_of, ShardCounters()).codec == "known"


@pytest.mark.parametrize("cpus", [1, 4])
def test_jpegs_are_in_order_and_in_the_right_colors(cpus: int):
    images = [np.full((8, 8, 3), (value, 0, 255 - value), np.uint8) for value in range(0, 250, 5)]
    grays = [image[..., 0] for image in images]
    counters = ShardCounters()
    with Overlap(cpus) as overlap:
        color, gray = overlap.jpegs(images, 95), overlap.jpegs(grays, 95)
        for jpegs, pictures in ((color(counters), images), (gray(counters), grays)):
            for jpeg, expected in zip(jpegs, pictures, strict=True):
                found: Any = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_UNCHANGED)
                found = found[..., ::-1] if found.ndim == 3 else found
                assert np.abs(found.astype(int) - expected).max() <= 4
    assert counters.seconds["jpeg"] > 0


def test_an_image_that_cannot_be_encoded_is_an_error():
    with Overlap(2) as overlap, pytest.raises((RuntimeError, cv2.error)):
        overlap.jpegs([np.zeros((0, 8), np.uint8)], 95)(ShardCounters())
