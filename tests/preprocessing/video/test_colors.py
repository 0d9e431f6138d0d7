"""The color matrix of videos that do not declare one."""

import numpy as np
import pytest

from lgd.preprocessing.video.colors import color_matrix, is_untagged
from lgd.preprocessing.video.decode import decode, decode_each_frame
from tests.preprocessing.video.generated_videos import Make, ffmpeg

RGB = (200, 100, 50)


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        ("yuv420p", True),
        ("yuv420p(progressive)", True),
        ("yuvj420p(pc, progressive)", True),
        ("yuv420p10le(tv, unknown/bt709/bt709, progressive)", True),
        ("nv12(tv, reserved/unknown/unknown)", True),
        ("yuv420p(tv, bt709, progressive)", False),
        ("yuv420p(tv, smpte170m/bt470bg/bt709)", False),
        ("yuv422p(pc, bt470bg/unknown/unknown, center)", False),
        ("yuv420p10le(tv, bt2020nc/bt2020/arib-std-b67)", False),
        ("gbrp(pc, gbr/unknown/unknown, progressive)", False),
        ("bgr24", False),
        ("rgb555le", False),
        ("0rgb", False),
        ("pal8", False),
        ("gray10le(tv)", False),
    ],
)
def test_a_video_is_untagged_if_it_is_ycbcr_and_declares_no_matrix(pixels: str, expected: bool) -> None:
    description = f"h264 (High) (avc1 / 0x31637661), {pixels}, 1280x720 [SAR 1:1 DAR 16:9], 25 fps, 25 tbr, 90k tbn"
    assert is_untagged(description) is expected


def test_only_untagged_videos_of_720_lines_and_more_are_taken_for_bt709() -> None:
    assert color_matrix(True, 720, "bt709-hd") == "bt709"
    assert color_matrix(True, 719, "bt709-hd") is None
    assert color_matrix(False, 1080, "bt709-hd") is None
    assert color_matrix(True, 1080, "bt601") is None


@pytest.mark.parametrize(
    ("size", "matrix", "tag", "untagged_matrix", "exact"),
    [
        ("1280x720", "bt709", None, "bt709-hd", True),
        ("1280x720", "bt709", None, "bt601", False),
        ("1280x720", "smpte170m", None, "bt601", True),
        ("720x1280", "bt709", None, "bt709-hd", True),  # 1280 lines as they are stored
        ("1280x718", "smpte170m", None, "bt709-hd", True),
        ("1280x718", "bt709", None, "bt709-hd", False),
        ("1280x720", "smpte170m", "smpte170m", "bt709-hd", True),
        ("320x240", "bt709", "bt709", "bt601", True),
    ],
)
def test_colors_are_those_of_the_declared_matrix_or_of_the_one_for_untagged_videos(
    make: Make, size: str, matrix: str, tag: str | None, untagged_matrix: str, exact: bool
) -> None:
    red, green, blue = RGB
    color = f"color=#{red:02x}{green:02x}{blue:02x}:s={size}:d=0.08,format=gbrp,scale=out_color_matrix={matrix}"
    source = f"{color}:out_range=tv,format=yuv420p,setparams=colorspace={tag or 'unknown'}:range=tv"
    path = make("v.mp4", source, "-c:v", "libx264", "-qp", "0", "-preset", "ultrafast")
    frames = decode(path, 25, 32, untagged_matrix=untagged_matrix).rgb  # type: ignore[arg-type]
    error = np.abs(frames.reshape(-1, 3).astype(int) - RGB).max()
    assert error <= 2 if exact else 8 <= error <= 30
    shown: list[np.ndarray] = []
    decode_each_frame(path, 25, 32, on_frame=shown.append, untagged_matrix=untagged_matrix)  # type: ignore[arg-type]
    assert np.array_equal(shown, frames)


def test_the_lines_of_a_rotated_video_are_those_that_are_stored(make: Make) -> None:
    source = "color=#c86432:s=1280x720:d=0.08,format=gbrp,scale=out_color_matrix=bt709,format=yuv420p"
    stored = make("v.mp4", f"{source},setparams=colorspace=unknown", "-c:v", "libx264", "-qp", "0")
    path = stored.with_name("rotated.mp4")
    ffmpeg("-display_rotation", "90", "-i", stored, "-c", "copy", path)
    frames = decode(path, 25, 32).rgb
    assert frames.shape[1:3] == (57, 32)
    assert np.abs(frames.reshape(-1, 3).astype(int) - RGB).max() <= 2
