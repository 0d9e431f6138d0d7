"""Rejections and their reasons."""

import pickle

import pytest

from lgd.preprocessing.video.rejections import Limits, Rejected, TooManyFrames


def test_a_rejection_can_be_pickled() -> None:
    rejected = pickle.loads(pickle.dumps(Rejected("truncated", "half of the file")))
    assert (rejected.reason, rejected.detail) == ("truncated", "half of the file")
    assert str(rejected) == "truncated: half of the file"


def test_an_unknown_reason_is_an_error() -> None:
    with pytest.raises(ValueError, match="is not one of"):
        Rejected("because", "x")


@pytest.mark.parametrize(
    ("size", "advice"),
    [
        ((40_000, 120), ("crop the video, or use a smaller --short-side", "crop the video")),
        ((5_000, 5_000), ("crop the video, or use a smaller --short-side", "crop the video")),
    ],
)
def test_the_advice_about_large_frames_names_only_options_that_the_command_has(
    size: tuple[int, int], advice: tuple[str, str]
) -> None:
    for options, expected in zip((True, False), advice, strict=True):
        with pytest.raises(Rejected, match=f"(: |; ){expected}$"):
            Limits(options=options).check_size(*size)


@pytest.mark.parametrize(
    ("frames", "frame_bytes", "advice"),
    [
        (10_001, 0, ("raise it with --max-frames or --max-seconds", "cut the video")),
        (1, 5 << 30, ("raise the limit with --max-memory-gb", "cut the video, or convert it to a smaller one")),
    ],
)
def test_the_advice_about_long_videos_names_only_options_that_the_command_has(
    frames: int, frame_bytes: int, advice: tuple[str, str]
) -> None:
    for options, expected in zip((True, False), advice, strict=True):
        with pytest.raises(TooManyFrames, match=f": {expected}$"):
            Limits(options=options).check_frames(frames, frame_bytes)
