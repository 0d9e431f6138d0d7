"""Decoding, on videos that the tests make."""

import os
import pickle
import time
from pathlib import Path

import numpy as np
import pytest

from lgd.preprocessing.video.decode import decode, decode_each_frame
from lgd.preprocessing.video.rejections import Limits, Rejected, TooManyFrames
from tests.preprocessing.video.generated_videos import NUMBERED, TEST_VIDEO, X264, Make, ffmpeg, reason


def numbered(make: Make, rate: int = 25, seconds: int = 4) -> Path:
    return make("numbered.mkv", NUMBERED.format(rate=rate, seconds=seconds), "-c:v", "ffv1")


def numbers(rgb: np.ndarray) -> list[int]:
    """Return the values of uniform frames."""
    assert (rgb == rgb[:, :1, :1, :1]).all()
    return [int(value) for value in rgb[:, 0, 0, 0]]


def test_frames_at_the_source_rate_are_the_source_frames(make: Make) -> None:
    frames = decode(numbered(make), 25, 48)
    assert numbers(frames.rgb) == list(range(100))
    assert frames.rgb.dtype == np.uint8
    assert (frames.fps, frames.width, frames.height, frames.source_fps) == (25, 64, 48, 25)


@pytest.mark.parametrize("rate", [10, 50, 24])
def test_a_different_rate_keeps_the_timing(make: Make, rate: int) -> None:
    values = numbers(decode(numbered(make, rate=rate), 25, 48).rgb)
    assert len(values) == 100
    assert all(abs(value / rate - k / 25) <= 1 / rate + 1 / 25 for k, value in enumerate(values))


def test_a_varying_rate_becomes_constant(make: Make) -> None:
    """The first second has 10, the second 50 frames per second."""
    select = ",select='if(lt(t,1),not(mod(n,5)),1)'"
    path = make("vfr.mkv", NUMBERED.format(rate=50, seconds=2) + select, "-c:v", "ffv1", "-fps_mode", "vfr")
    values = numbers(decode(path, 25, 48).rgb)
    assert len(values) == 50
    assert all(abs(value / 50 - k / 25) <= 0.1 + 0.04 for k, value in enumerate(values))


@pytest.mark.parametrize(
    ("start_s", "end_s", "expected"),
    [
        (1.0, 2.0, range(25, 50)),
        (None, 0.2, range(0, 5)),
        (3.6, None, range(90, 100)),
        (0.05, 0.13, range(2, 4)),  # frames at 0.08 and 0.12 s; 0.04 s is before the start
        (0.12, 0.2, range(3, 5)),  # the frame at the start is kept, the one at the end is not
    ],
)
def test_trimming_keeps_the_frames_from_start_until_before_end(
    make: Make, start_s: float | None, end_s: float | None, expected: range
) -> None:
    assert numbers(decode(numbered(make), 25, 48, start_s=start_s, end_s=end_s).rgb) == list(expected)


@pytest.mark.parametrize("name", ["long.mp4", "long.mkv"])
def test_an_interval_late_in_a_long_video_has_the_frames_of_the_complete_video(make: Make, name: str) -> None:
    path = make(name, "testsrc2=s=64x48:r=10:d=60", *X264, "-bf", "3", "-g", "73")
    complete = decode(path, 10, 48).rgb
    assert np.array_equal(decode(path, 10, 48, start_s=41.3, end_s=43.0).rgb, complete[413:430])


def test_times_are_counted_from_the_first_frame(make: Make) -> None:
    """Transport streams start at any time; sound may start before the video."""
    sound = ("-f", "lavfi", "-i", "sine=d=50")
    late = ("-c:a", "aac", *X264, "-vf", "setpts=PTS+0.737/TB")
    for path, start_s in (
        (make("late.ts", TEST_VIDEO, *X264, "-output_ts_offset", "1000"), 1.0),
        (make("late.mp4", TEST_VIDEO, *sound, *late), 1.0),
        (make("later.mkv", TEST_VIDEO.replace("d=2", "d=40"), *sound, *late), 35.0),
    ):
        start = round(start_s * 25)
        assert np.array_equal(
            decode(path, 25, 48, start_s=start_s, end_s=start_s + 0.4).rgb, decode(path, 25, 48).rgb[start : start + 10]
        )


def test_raw_streams_without_timestamps_decode(make: Make) -> None:
    assert len(decode(make("v.h264", TEST_VIDEO, *X264), 25, 32).rgb) in (49, 50)


@pytest.mark.parametrize(
    ("size", "shape"), [("96x64", (32, 48)), ("64x96", (48, 32)), ("98x34", (32, 92)), ("16x16", (32, 32))]
)
def test_the_short_side_is_resized_and_the_aspect_ratio_kept(make: Make, size: str, shape: tuple[int, int]) -> None:
    assert decode(make("v.mkv", f"testsrc2=s={size}:d=0.2", "-c:v", "ffv1"), 25, 32).rgb.shape[1:3] == shape


def test_pixels_that_are_not_square_become_square(make: Make) -> None:
    path = make("anamorphic.mp4", "testsrc2=s=64x64:d=0.2,setsar=2", *X264)
    assert decode(path, 25, 32).rgb.shape[1:3] == (32, 64)


@pytest.mark.parametrize("matrix", ["bt709", "smpte170m"])
@pytest.mark.parametrize(("levels", "pixels"), [("tv", "yuv420p"), ("pc", "yuv444p"), ("tv", "yuv420p10le")])
def test_colors_follow_the_tagged_matrix_and_range(make: Make, matrix: str, levels: str, pixels: str) -> None:
    scale = f"color=0xC86432:s=32x32:d=0.2,scale=out_color_matrix={matrix}:out_range={levels},format={pixels}"
    tags = ("-colorspace", matrix, "-color_range", levels)
    path = make("color.mp4", scale, "-c:v", "libx264", "-qp", "0", *tags)
    assert np.abs(decode(path, 25, 32).rgb.reshape(-1, 3).astype(int) - (200, 100, 50)).max() <= 3


def test_the_same_file_gives_the_same_bytes(make: Make) -> None:
    path = make("v.mp4", TEST_VIDEO, *X264)
    assert decode(path, 25, 40).rgb.tobytes() == decode(path, 25, 40).rgb.tobytes()


def test_too_few_frames_are_too_short(make: Make) -> None:
    path = make("one.mkv", "testsrc2=s=32x32:r=25:d=0.04", "-c:v", "ffv1")
    assert reason(path) == "too-short"
    assert decode(path, 25, 32, min_frames=1).rgb.shape[0] == 1


def test_a_video_that_ends_before_its_annotation_is_too_short(make: Make) -> None:
    path = make("v.mp4", TEST_VIDEO, *X264)
    assert len(decode(path, 25, 32, start_s=1.0, end_s=2.2).rgb) == 25  # annotations are rounded
    assert reason(path, start_s=1.0, end_s=3.0) == "too-short"
    assert reason(path, start_s=10.0, end_s=20.0) == "too-short"
    assert reason(path, start_s=400.0, end_s=410.0) == "too-short"


def test_a_truncated_file_without_sizes_is_detected_by_its_declared_duration(make: Make) -> None:
    path = make("v.flv", "testsrc2=s=96x64:r=25:d=4", *X264)
    assert len(decode(path, 25, 32).rgb) == 100
    os.truncate(path, path.stat().st_size // 2)
    assert reason(path) == "truncated"


def test_a_few_damaged_frames_are_counted_and_many_are_rejected(make: Make) -> None:
    path = make("v.avi", "testsrc2=s=96x64:r=25:d=8", "-c:v", "mpeg4", "-g", "5", "-q:v", "2")
    intact = path.read_bytes()
    for flips, damaged in ((2, True), (400, False)):
        data = bytearray(intact)
        for i in range(flips):
            at = 20_000 + i * (len(data) - 40_000) // flips
            data[at : at + 40] = b"\x55" * 40
        path.write_bytes(data)
        if damaged:
            frames = decode(path, 25, 32)
            assert len(frames.rgb) == 200
            assert 0 < frames.damaged <= 20
        else:
            assert reason(path) == "decoder-error"


def test_videos_over_the_limits_on_pixels_frames_and_bytes_are_too_large(make: Make) -> None:
    path = make("v.mp4", TEST_VIDEO, *X264)
    assert reason(path, limits=Limits(pixels=96 * 64 - 1)) == "too-large"
    assert reason(path, limits=Limits(frames=49)) == "too-large"
    assert reason(path, limits=Limits(frame_bytes=49 * 32 * 48 * 3)) == "too-large"
    assert len(decode(path, 25, 32, limits=Limits(pixels=96 * 64, frames=50, frame_bytes=50 * 32 * 48 * 3)).rgb) == 50


@pytest.mark.parametrize(
    ("size", "options", "short_side", "resized"),
    [
        ("2000x2", (), 32, "32000 x 32"),
        ("2000x2", (), 33, None),  # 33000 pixels wide
        ("4x2000", (), 131, "131 x 65500"),
        ("4x2000", (), 132, None),  # 66000 pixels high
        ("128x64", ("-vf", "setsar=50/1"), 32, "3200 x 32"),  # of the frames that are displayed
        ("128x64", ("-vf", "setsar=50/1"), 330, None),
        ("16x16", (), 4097, None),  # over the limit on pixels
    ],
)
def test_frames_that_no_jpeg_can_store_are_rejected_before_decoding(
    make: Make,
    size: str,
    options: tuple[str, ...],
    short_side: int,
    resized: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = make("thin.mkv", f"color=red:s={size}:r=5:d=1", *options, "-c:v", "ffv1")
    if resized is None:
        monkeypatch.setattr("lgd.preprocessing.video.decode._command", lambda *_, **__: 1 / 0)
        with pytest.raises(Rejected, match=r"too-large: its resized frames, .* use a smaller --short-side"):
            decode(path, 5, short_side)
    else:
        height, width = decode(path, 5, short_side).rgb.shape[1:3]
        assert f"{width} x {height}" == resized


def test_a_rotated_video_counts_as_it_is_displayed(make: Make, tmp_path: Path) -> None:
    path = make("v.mp4", "color=red:s=2000x2:r=5:d=1", *X264)
    rotated = tmp_path / "rotated.mp4"
    ffmpeg("-display_rotation", "90", "-i", path, "-c", "copy", rotated)
    assert reason(path, limits=Limits(side=63_998)) == "too-large"  # 32000 pixels wide: two planes take 64000
    assert decode(rotated, 25, 32, limits=Limits(side=63_998)).rgb.shape[1:3] == (32_000, 32)
    assert reason(rotated, limits=Limits(side=31_999)) == "too-large"


def test_a_video_that_declares_too_many_frames_is_rejected_before_decoding(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make("v.mp4", "color=red:s=16x16:r=25:d=5", *X264)
    monkeypatch.setattr("lgd.preprocessing.video.decode._command", lambda *_, **__: 1 / 0)
    with pytest.raises(TooManyFrames, match=r"about 125 frames \(5 s\); the limit is 90: raise it with --max-frames"):
        decode(path, 25, 32, limits=Limits(frames=90))


def test_a_limit_on_memory_names_the_option_and_whether_it_is_the_node_s(make: Make) -> None:
    path = make("v.mp4", TEST_VIDEO, *X264)
    for follows, origin in ((False, ""), (True, ", half of this node's memory per task")):
        with pytest.raises(TooManyFrames) as raised:
            decode(path, 25, 32, limits=Limits(frame_bytes=1 << 17, follows_node=follows))
        assert raised.value.detail == (
            f"its frames take more than 0.000122 GiB{origin}: raise the limit with --max-memory-gb"
        )
        assert pickle.loads(pickle.dumps(raised.value)).detail == raised.value.detail


def test_a_very_wide_frame_is_not_resized_beyond_the_pixel_limit(make: Make) -> None:
    path = make("ribbon.mkv", "color=red:s=8192x2:r=5:d=1", "-c:v", "ffv1")
    assert reason(path, limits=Limits(pixels=1 << 20)) == "too-large"  # resized, it would have 131072 x 32 pixels


def test_a_gap_of_days_between_two_frames_does_not_exhaust_the_memory(make: Make) -> None:
    path = make("gap.mkv", "color=red:s=32x32:r=1:d=2", "-vf", "setpts=N*1e6/TB", *X264, "-fps_mode", "passthrough")
    start = time.monotonic()
    assert len(decode(path, 25, 32).rgb) < 100  # without the gap
    assert time.monotonic() - start < 20


def test_the_frames_one_by_one_are_those_of_the_complete_video(make: Make) -> None:
    path = make("v.mp4", TEST_VIDEO, *X264)
    frames: list[np.ndarray] = []
    decode_each_frame(path, 10, 32, on_frame=frames.append)
    assert np.array_equal(frames, decode(path, 10, 32).rgb)


def test_an_error_of_the_caller_ends_the_decoding(make: Make) -> None:
    def fail(frame: np.ndarray) -> None:
        raise KeyError("in on_frame")

    with pytest.raises(KeyError, match="in on_frame"):
        decode_each_frame(make("v.mp4", TEST_VIDEO, *X264), 10, 32, on_frame=fail)
