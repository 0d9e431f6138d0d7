"""Videos whose format or whose clock changes midway. Frame n is gray with value n + 16."""

from pathlib import Path

import numpy as np
import pytest

from lgd.preprocessing.video.decode import Frames, decode, decode_each_frame
from lgd.preprocessing.video.rejections import Limits, Rejected
from tests.preprocessing.video.generated_videos import Make, ffmpeg

SOURCE = "nullsrc=s={size}:r=25:d=2,format=gbrp,geq=r=N+{first}:g=N+{first}:b=N+{first}"
H264 = ("-c:v", "libx264", "-qp", "1", "-preset", "ultrafast")
HOUR = 3600


def numbers(frames: Frames) -> list[int]:
    values = frames.rgb.mean((1, 2, 3)) - 16
    assert np.abs(frames.rgb - frames.rgb.mean((1, 2, 3), keepdims=True)).max() <= 2
    return [round(float(value)) for value in values]


def assert_numbers(frames: Frames, expected: range) -> None:
    """Check the numbers of the frames, to within the rounding of YCbCr."""
    assert len(frames.rgb) == len(expected)
    assert np.abs(np.subtract(numbers(frames), expected)).max() <= 2


def changing(
    make: Make, *, size: str = "96x64", pixels: str = "yuv420p", name: str = "joined.mkv", options: tuple[str, ...] = ()
) -> Path:
    """Make a video of 100 frames with a different format from the 50th frame on."""
    parts = [
        make(f"{first}.h264", SOURCE.format(size=size_of, first=first) + f",format={pixels_of}", *H264, *options_of)
        for first, size_of, pixels_of, options_of in ((16, "96x64", "yuv420p", ()), (66, size, pixels, options))
    ]
    joined = parts[0].with_name("joined.h264")
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    path = joined.with_name(name)
    if path != joined:
        ffmpeg("-r", "25", "-i", joined, "-c", "copy", "-bsf:v", "setts=ts=N/25/TB", "-y", path)
    return path


def joined(make: Make, *parts: Path) -> Path:
    path = parts[0].with_name(f"joined{parts[0].suffix}")
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def part(make: Make, name: str, first: int, *options: str) -> Path:
    return make(name, SOURCE.format(size="96x64", first=first) + ",format=yuv420p", *(options or H264))


def rejection(path: Path, **options: object) -> str:
    with pytest.raises(Rejected) as rejected:
        decode(path, 25, 32, **options)  # type: ignore[arg-type]
    return str(rejected.value)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("joined.mkv", "192x128"),
        ("joined.mp4", "48x32"),
        ("joined.ts", "192x128"),
        ("joined.avi", "48x32"),
        ("joined.h264", "192x128"),
    ],
)
def test_frames_of_a_different_size_are_resized_to_the_size_of_the_first(make: Make, name: str, size: str) -> None:
    frames = decode(changing(make, size=size, name=name), 25, 32)
    assert frames.rgb.shape[1:3] == (32, 48)
    assert (frames.width, frames.height) == (96, 64)
    assert_numbers(frames, range(100))


@pytest.mark.parametrize(
    ("size", "pixels", "options"),
    [
        ("64x96", "yuv420p", ()),
        ("96x64", "yuv420p", ("-aspect", "3")),
        ("96x64", "yuv422p", ()),
        ("96x64", "yuv444p", ()),
        ("96x64", "yuv420p10le", ()),
        ("96x64", "gray", ("-bf", "0")),
        ("96x64", "yuvj420p", ("-bf", "0", "-color_range", "pc")),
        ("96x64", "yuv420p", ("-colorspace", "bt709")),
    ],
)
def test_frames_of_a_different_format_are_kept(make: Make, size: str, pixels: str, options: tuple[str, ...]) -> None:
    frames = decode(changing(make, size=size, pixels=pixels, options=options), 25, 32)
    assert frames.rgb.shape[1:3] == (32, 48)
    assert_numbers(frames, range(100))


def test_colors_follow_the_matrix_that_changes_midway(make: Make) -> None:
    path = Path()
    for matrix in ("smpte170m", "bt709"):
        color = (
            f"color=#c86432:s=96x64:r=25:d=1,format=gbrp,scale=out_color_matrix={matrix}:out_range=tv,format=yuv420p"
        )
        path = make(f"{matrix}.h264", color, "-c:v", "libx264", "-qp", "0", "-colorspace", matrix)
    path.write_bytes(path.with_name("smpte170m.h264").read_bytes() + path.read_bytes())
    frames = decode(path, 25, 32).rgb
    assert len(frames) == 50
    assert np.abs(frames.reshape(-1, 3).astype(int) - (200, 100, 50)).max() <= 2


def test_a_matrix_that_is_declared_only_midway_in_high_definition_is_rejected(make: Make) -> None:
    parts = [
        make(f"{tag}.h264", f"color=red:s=1280x720:r=25:d=1,format=yuv420p,setparams=colorspace={tag}:range=tv", *H264)
        for tag in ("unknown", "smpte170m")
    ]
    path = parts[0].with_name("v.mkv")
    ffmpeg("-r", "25", "-i", joined(make, *parts), "-c", "copy", "-bsf:v", "setts=ts=N/25/TB", path)
    assert rejection(path).startswith("decoder-error: the colors change midway: color matrix unknown to smpte170m")
    assert len(decode(path, 25, 32, untagged_matrix="bt601").rgb) == 50


@pytest.mark.parametrize(("start_s", "end_s"), [(1.0, None), (None, 3.0), (1.0, 3.0), (2.4, 3.2)])
def test_an_interval_of_a_video_that_changes_has_the_frames_of_the_complete_one(
    make: Make, start_s: float | None, end_s: float | None
) -> None:
    path = changing(make, size="64x64")
    complete = decode(path, 25, 32).rgb
    assert len(complete) == 100
    part = decode(path, 25, 32, start_s=start_s, end_s=end_s).rgb
    assert np.array_equal(part, complete[round((start_s or 0) * 25) : None if end_s is None else round(end_s * 25)])


def test_an_interval_that_is_found_by_a_seek_has_the_size_of_the_first_frame(make: Make) -> None:
    for name, size in (("a.h264", "96x64"), ("b.h264", "64x96")):
        path = make(name, f"testsrc2=s={size}:r=5:d=24", *H264, "-pix_fmt", "yuv420p", "-g", "10")
    path.write_bytes(path.with_name("a.h264").read_bytes() + path.read_bytes())
    video = path.with_name("v.mkv")
    ffmpeg("-r", "5", "-i", path, "-c", "copy", "-bsf:v", "setts=ts=N/5/TB", video)
    complete = decode(video, 5, 32).rgb
    assert complete.shape == (240, 32, 48, 3)
    assert np.array_equal(decode(video, 5, 32, start_s=40.0, end_s=44.0).rgb, complete[200:220])


def test_a_change_midway_in_a_rotated_video_is_rejected_with_what_changed(make: Make) -> None:
    path = changing(make, size="192x128")
    for option, name in (("-display_rotation", "rotated.mp4"), ("-display_vflip", "mirrored.mp4")):
        value = ("90",) if option == "-display_rotation" else ()
        ffmpeg(option, *value, "-i", path, "-c", "copy", path.with_name(name))
        assert rejection(path.with_name(name)) == (
            "decoder-error: a video that is displayed rotated changes midway: 96 x 64 to 192 x 128 pixels"
        )


def test_a_change_midway_beyond_the_pixel_limit_is_too_large(make: Make) -> None:
    path = changing(make, size="192x128")
    assert rejection(path, limits=Limits(pixels=192 * 128 - 1)).startswith(
        "too-large: the pictures change from 96 x 64"
    )
    assert rejection(path, limits=Limits(pixels=96 * 64)).startswith("too-large: ")
    assert len(decode(path, 25, 32, limits=Limits(pixels=192 * 128)).rgb) == 100


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [
        ("ts", H264),
        ("ts", ("-c:v", "mpeg2video", "-q:v", "1", "-bf", "2")),
        ("mpg", ("-c:v", "mpeg2video", "-q:v", "1", "-bf", "2")),
        ("vob", ("-c:v", "mpeg2video", "-q:v", "1", "-bf", "2")),
        ("mkv", H264),
    ],
)
def test_joined_recordings_have_all_frames(make: Make, suffix: str, codec: tuple[str, ...]) -> None:
    parts = part(make, f"a.{suffix}", 16, *codec), part(make, f"b.{suffix}", 66, *codec)
    path = joined(make, *parts)
    assert_numbers(decode(path, 25, 32), range(100))
    assert_numbers(decode(path, 25, 32, start_s=1.0, end_s=3.0), range(25, 75))
    assert_numbers(decode(path, 25, 32, start_s=2.4), range(60, 100))


def test_an_interval_of_joined_recordings_is_found_by_counting_frames_not_by_a_seek(make: Make) -> None:
    parts = [make(f"{n}.mkv", f"testsrc2=s=96x64:r=5:d=24,hue=h={n * 90}", *H264, "-g", "10") for n in range(2)]
    path = joined(make, *parts)
    complete = decode(path, 5, 32).rgb
    assert len(complete) == 240
    assert np.array_equal(decode(path, 5, 32, start_s=21.0, end_s=23.0).rgb, complete[105:115])
    assert np.array_equal(decode(path, 5, 32, start_s=30.0, end_s=32.0).rgb, complete[150:160])


def test_the_clock_of_a_transport_stream_may_jump_and_wrap(make: Make) -> None:
    hour = part(make, "b.ts", 66, *H264, "-output_ts_offset", str(HOUR))
    path = joined(make, part(make, "a.ts", 16), hour)
    assert_numbers(decode(path, 25, 32), range(100))
    assert_numbers(decode(path, 25, 32, start_s=1.0, end_s=3.0), range(25, 75))
    wrapping = part(make, "wrap.ts", 16, *H264, "-output_ts_offset", str(2**33 / 90_000 - 1), "-muxdelay", "0")
    assert_numbers(decode(wrapping, 25, 32), range(50))


def jump(make: Make, name: str, seconds: float) -> Path:
    """Make a video of 50 frames, with a jump of the clock before the 25th one."""
    times = f",format=yuv420p,setpts='PTS+if(gte(N,25),{seconds}/TB)'"
    source = SOURCE.format(size="96x64", first=16) + times
    return make(name, source, *H264, "-fps_mode", "passthrough")


@pytest.mark.parametrize("name", ["v.mkv", "v.mp4", "v.ts", "v.flv"])
def test_a_jump_of_the_clock_by_an_hour_is_left_out(make: Make, name: str) -> None:
    assert_numbers(decode(jump(make, name, HOUR), 25, 32), range(50))


@pytest.mark.parametrize("name", ["v.mkv", "v.mp4", "v.ts"])
def test_a_picture_that_is_shown_for_long_is_repeated(make: Make, name: str) -> None:
    shown = numbers(decode(jump(make, name, 30), 25, 32))
    assert len(shown) == 50 + 30 * 25
    assert len(set(shown[24:775])) == 1
    assert abs(shown[775] - 25) <= 2


def test_the_last_picture_may_be_declared_to_last_an_hour(make: Make) -> None:
    path = part(make, "v.mp4", 16)
    long = path.with_name("long.mp4")
    ffmpeg("-i", path, "-c", "copy", "-bsf:v", f"setts=duration=if(eq(N\\,49)\\,{HOUR}/TB\\,DURATION)", long)
    assert_numbers(decode(long, 25, 32), range(50))


def test_an_interval_that_a_jump_of_the_clock_makes_ambiguous_is_rejected(make: Make) -> None:
    path = jump(make, "v.mkv", HOUR)
    assert_numbers(decode(path, 25, 32, end_s=1.0), range(25))
    for interval in ({"end_s": 1.2}, {"start_s": 0.5}, {"start_s": 1.2, "end_s": 1.6}):
        assert rejection(path, **interval).startswith("decoder-error: timestamps jump by 3600 s at 1.0 s, before the ")


def test_repeated_pictures_do_not_exhaust_the_memory(make: Make) -> None:
    """Their resized copies would take 700 MB of the memory of ffmpeg, which needs about 400 MB itself."""
    path = jump(make, "v.mkv", 100)
    count = 0

    def on_frame(frame: np.ndarray) -> None:
        nonlocal count
        count += 1

    decode_each_frame(path, 10, 400, on_frame=on_frame, limits=Limits(memory_bytes=600 << 20))
    assert count == 20 + 100 * 10


def test_the_frames_are_the_same_whether_they_are_resized_before_or_after_the_rate_is_made_constant(make: Make) -> None:
    path = make("v.mkv", "testsrc2=s=96x64:r=30:d=1", *H264)
    small = Limits(memory_bytes=1 << 29)
    assert small.memory_bytes / 2 < 120 * 25 * 3 * 250 * 375
    assert np.array_equal(decode(path, 25, 250, limits=small).rgb, decode(path, 25, 250).rgb)


def test_texts_of_the_file_are_not_taken_for_messages(make: Make) -> None:
    for text in ("Cannot allocate memory", "Found duplicated MOOV Atom", "[Eval @ 0x1] [info] 3600.0"):
        path = part(make, "v.mkv", 16, *H264, "-metadata", f"title={text}")
        assert_numbers(decode(path, 25, 32, start_s=1.0), range(25, 50))


def test_mp4_files_that_are_copied_into_one_are_rejected_if_frames_are_lost(make: Make) -> None:
    fragmented = (*H264, "-movflags", "+frag_keyframe+empty_moov+default_base_moof")
    path = joined(make, part(make, "a.mp4", 16, *fragmented), part(make, "b.mp4", 66, *fragmented))
    assert rejection(path).startswith("decoder-error: a second recording follows at byte ")
    data = bytearray(path.read_bytes())
    without_times = data.replace(b"tfdt", b"free")
    data[data.rindex(b"tfdt") + 15] += 1  # the second file begins after the first one has begun
    path.write_bytes(data)
    assert "several MP4 files were copied into one, of which 51 of 100 frames can be decoded" in rejection(path)
    path.write_bytes(without_times)
    assert_numbers(decode(path, 25, 32), range(100))


def test_a_video_that_ffmpeg_stops_reading_midway_is_rejected(make: Make) -> None:
    sound = ("-f", "lavfi", "-i", "sine=d=2", "-c:a", "flac", "-c:v", "libtheora", "-q:v", "10")
    path = joined(make, part(make, "a.ogv", 16, *sound), part(make, "b.ogv", 66, *sound))
    assert rejection(path).startswith("decoder-error: ")
