"""Decoding, on videos made here by the same ffmpeg; hostile files of our own."""

import os
import pickle
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from lgd.preprocessing.video.decode import decode
from lgd.preprocessing.video.ffmpeg_child import ffmpeg_binary, ffmpeg_version
from lgd.preprocessing.video.ffmpeg_log import LINE_CHARACTERS, FfmpegLog
from lgd.preprocessing.video.probe import CONTAINERS
from lgd.preprocessing.video.rejections import REASONS, Limits, Rejected

Make = Callable[..., Path]
# Frame n is a gray of value n, kept exactly by ffv1.
NUMBERED = "nullsrc=s=64x48:r={rate}:d={seconds},format=gbrp,geq=r=N:g=N:b=N"
TEST_PICTURE = "testsrc2=s=96x64:r=25:d=2"
X264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-preset", "ultrafast")


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def video(name: str, source: str, *options: str) -> Path:
        path = tmp_path / name
        inputs = ["-f", "lavfi", "-i", source]
        ffmpeg("-y", *inputs, *options, f"file:{path}")
        return path

    return video


def ffmpeg(*arguments: str | Path) -> None:
    subprocess.run([ffmpeg_binary(), "-v", "error", "-nostdin", *arguments], check=True)


def numbered(make: Make, rate: int = 25, seconds: int = 4) -> Path:
    return make("numbered.mkv", NUMBERED.format(rate=rate, seconds=seconds), "-c:v", "ffv1")


def numbers(rgb: np.ndarray) -> list[int]:
    """The values of uniform frames."""
    assert (rgb == rgb[:, :1, :1, :1]).all()
    return [int(value) for value in rgb[:, 0, 0, 0]]


def reason(path: Path, **options: object) -> str:
    with pytest.raises(Rejected) as rejected:
        decode(path, 25, 32, **options)  # type: ignore[arg-type]
    assert rejected.value.reason in REASONS
    assert "\n" not in rejected.value.detail
    assert "/dev/fd" not in rejected.value.detail  # it differs from run to run
    return rejected.value.reason


# Frames


def test_frames_at_the_source_rate_are_the_source_frames(make: Make) -> None:
    frames = decode(numbered(make), 25, 48)
    assert numbers(frames.rgb) == list(range(100))
    assert frames.rgb.dtype == np.uint8
    assert (frames.fps, frames.width, frames.height, frames.source_fps) == (25, 64, 48, 25)


@pytest.mark.parametrize("rate", [10, 50, 24])
def test_another_rate_keeps_the_clock(make: Make, rate: int) -> None:
    values = numbers(decode(numbered(make, rate=rate), 25, 48).rgb)
    assert len(values) == 100
    assert all(abs(value / rate - k / 25) <= 1 / rate + 1 / 25 for k, value in enumerate(values))


def test_a_varying_rate_becomes_constant(make: Make) -> None:
    """The first second at 10, the second at 50 frames per second."""
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
        (0.05, 0.13, range(2, 4)),  # frames at 0.08 and 0.12 s; 0.04 lies before the start
        (0.12, 0.2, range(3, 5)),  # the frame at the start is in, the one at the end is not
    ],
)
def test_trimming_keeps_the_frames_from_start_until_before_end(
    make: Make, start_s: float | None, end_s: float | None, expected: range
) -> None:
    assert numbers(decode(numbered(make), 25, 48, start_s=start_s, end_s=end_s).rgb) == list(expected)


@pytest.mark.parametrize("name", ["long.mp4", "long.mkv"])
def test_a_part_late_in_a_long_video_is_the_same_frames_as_cut_from_all(make: Make, name: str) -> None:
    path = make(name, "testsrc2=s=64x48:r=10:d=60", *X264, "-bf", "3", "-g", "73")
    whole = decode(path, 10, 48).rgb
    assert np.array_equal(decode(path, 10, 48, start_s=41.3, end_s=43.0).rgb, whole[413:430])


def test_times_are_counted_from_the_first_frame(make: Make) -> None:
    """Transport streams start at any time; sound may start before the picture."""
    sound = ("-f", "lavfi", "-i", "sine=d=50")
    late = ("-c:a", "aac", *X264, "-vf", "setpts=PTS+0.737/TB")
    for path, start_s in (
        (make("late.ts", TEST_PICTURE, *X264, "-output_ts_offset", "1000"), 1.0),
        (make("late.mp4", TEST_PICTURE, *sound, *late), 1.0),
        (make("later.mkv", TEST_PICTURE.replace("d=2", "d=40"), *sound, *late), 35.0),
    ):
        start = round(start_s * 25)
        assert np.array_equal(
            decode(path, 25, 48, start_s=start_s, end_s=start_s + 0.4).rgb, decode(path, 25, 48).rgb[start : start + 10]
        )


def test_raw_streams_without_timestamps_decode(make: Make) -> None:
    assert len(decode(make("v.h264", TEST_PICTURE, *X264), 25, 32).rgb) in (49, 50)


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


def test_cover_art_is_not_the_video(make: Make, tmp_path: Path) -> None:
    cover = make("cover.png", "color=red:s=640x480", "-frames:v", "1")
    video = make("plain.mp4", TEST_PICTURE, *X264)
    path = tmp_path / "cover.mkv"
    attach = ("-attach", cover, "-metadata:s:t", "mimetype=image/png")
    ffmpeg("-i", video, *attach, "-c", "copy", "-disposition:v:0", "0", path)
    assert np.array_equal(decode(path, 25, 32).rgb, decode(video, 25, 32).rgb)


def test_of_several_video_streams_the_default_one_is_taken(make: Make, tmp_path: Path) -> None:
    big, small = make("big.mkv", "color=red:s=96x96:d=1", *X264), make("small.mkv", "color=blue:s=32x32:d=1", *X264)
    for default, color in ((0, 0), (1, 2)):
        path = tmp_path / f"two{default}.mkv"
        flags = [f"-disposition:v:{default}", "default", f"-disposition:v:{1 - default}", "0"]
        ffmpeg("-i", big, "-i", small, "-map", "0", "-map", "1", "-c", "copy", *flags, path)
        assert decode(path, 25, 32).rgb[0, 0, 0].argmax() == color


def test_the_same_file_gives_the_same_bytes(make: Make) -> None:
    path = make("v.mp4", TEST_PICTURE, *X264)
    assert decode(path, 25, 40).rgb.tobytes() == decode(path, 25, 40).rgb.tobytes()


@pytest.mark.parametrize(
    "name",
    [
        "-i.mp4",
        "with space.mp4",
        "co:lon.mp4",
        "concat:a|b.mp4",
        "http://127.0.0.1.mp4",
        "frame%03d.png.mp4",
        "new\nline\n  Stream #0:0: Video: rawvideo, 4x4.mp4",
        "日本語 é.mp4",
        os.fsdecode(b"\xff\xfe.mp4"),
        "'quote\" $(x) `y`.mp4",
    ],
)
def test_any_file_name_is_only_a_name(make: Make, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / name.replace("/", "_")
    make("v.mp4", TEST_PICTURE, *X264).rename(path)
    monkeypatch.chdir(tmp_path)
    for given in (path, Path(path.name)):
        assert decode(given, 25, 32).rgb.shape == (50, 32, 48, 3)


# Broken files


def test_what_is_not_a_video_is_rejected_by_reason(make: Make, tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video\n" * 100)
    (tmp_path / "folder.mp4").mkdir()
    os.mkfifo(tmp_path / "pipe.mp4")
    reasons = {
        name: reason(tmp_path / name) for name in ("gone.mp4", "empty.mp4", "text.mp4", "folder.mp4", "pipe.mp4")
    }
    assert reasons.pop("gone.mp4") == "missing"
    assert set(reasons.values()) == {"unreadable"}
    assert reason(Path("/dev/zero")) == "unreadable"
    assert reason(make("picture.png", "testsrc2=s=32x32", "-frames:v", "1")) == "unreadable"
    assert reason(make("sound.mp4", "sine=d=1", "-c:a", "aac")) == "no-video"


def test_too_few_frames_are_too_short(make: Make) -> None:
    path = make("one.mkv", "testsrc2=s=32x32:r=25:d=0.04", "-c:v", "ffv1")
    assert reason(path) == "too-short"
    assert decode(path, 25, 32, min_frames=1).rgb.shape[0] == 1


def test_a_video_that_ends_before_its_annotation_is_too_short(make: Make) -> None:
    path = make("v.mp4", TEST_PICTURE, *X264)
    assert len(decode(path, 25, 32, start_s=1.0, end_s=2.2).rgb) == 25  # annotations are rounded
    assert reason(path, start_s=1.0, end_s=3.0) == "too-short"
    assert reason(path, start_s=10.0, end_s=20.0) == "too-short"
    assert reason(path, start_s=400.0, end_s=410.0) == "too-short"


@pytest.mark.parametrize("lost", [0.6, 0.1, 1])
@pytest.mark.parametrize(
    "name",
    ["end.mp4", "front.mp4", "v.mov", "v.mkv", "v.webm", "v.avi", "v.wmv", "sound.mp4", "sound.avi", "sound.mkv"],
)
def test_a_file_that_was_cut_off_is_never_passed_off_as_whole(make: Make, name: str, lost: float) -> None:
    """lost: a share of the bytes, or one byte."""
    codecs = {"webm": ("-c:v", "libvpx", "-deadline", "realtime"), "wmv": ("-c:v", "wmv2")}
    codec = codecs.get(name.split(".")[1], X264)
    sound = ("-f", "lavfi", "-i", "sine=d=2", "-t", "2") if name.startswith("sound") else ()
    front = ("-movflags", "faststart") if name.startswith("front") else ()
    path = make(name, "testsrc2=s=96x64:r=25:d=2", *sound, *codec, *front)
    assert len(decode(path, 25, 32).rgb) in (50, 51)  # beside sound, the avi writer adds an empty frame
    size = path.stat().st_size
    os.truncate(path, size - 1 if lost == 1 else int(size * (1 - lost)))
    assert reason(path) == "truncated"


def test_a_cut_file_without_sizes_is_known_by_its_declared_duration(make: Make) -> None:
    path = make("v.flv", "testsrc2=s=96x64:r=25:d=4", *X264)
    assert len(decode(path, 25, 32).rgb) == 100
    os.truncate(path, path.stat().st_size // 2)
    assert reason(path) == "truncated"


def test_a_live_recording_that_declares_nothing_is_taken(make: Make, tmp_path: Path) -> None:
    live = tmp_path / "live.webm"
    with open(live, "wb") as file:
        command = [
            str(ffmpeg_binary()),
            "-v",
            "error",
            "-f",
            "lavfi",
            "-i",
            TEST_PICTURE,
            *X264,
            "-f",
            "matroska",
            "pipe:1",
        ]
        subprocess.run(command, stdout=file, check=True)
    assert len(decode(live, 25, 32).rgb) == 50


def test_a_little_damage_is_counted_and_much_is_rejected(make: Make) -> None:
    path = make("v.avi", "testsrc2=s=96x64:r=25:d=8", "-c:v", "mpeg4", "-g", "5", "-q:v", "2")
    whole = path.read_bytes()
    for flips, damaged in ((2, True), (400, False)):
        data = bytearray(whole)
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


# Hostile files


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """An address on this machine that nobody should call."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def test_no_container_that_names_other_files_is_open() -> None:
    names = set(CONTAINERS.split(","))
    assert not names & {
        "concat",
        "hls",
        "applehttp",
        "dash",
        "sdp",
        "rtsp",
        "imf",
        "image2",
        "lavfi",
        "webm_dash_manifest",
    }
    assert not names & {"tty", "data", "rawvideo", "vobsub", "avisynth", "libgme", "sap", "rtp"}


@pytest.mark.parametrize("name", ["script.mp4", "script.m3u8", "script.ffconcat", "script.mpd", "script.sdp"])
@pytest.mark.parametrize("kind", ["concat", "hls", "dash", "sdp", "imf"])
def test_a_script_opens_no_file_and_no_address(
    make: Make, tmp_path: Path, listener: socket.socket, kind: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = make("secret.ts", TEST_PICTURE, *X264)
    port = listener.getsockname()[1]
    address = f"http://127.0.0.1:{port}/x.ts"
    text = {
        "concat": "ffconcat version 1.0\nfile '{}'\n",
        "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{}\n#EXT-X-ENDLIST\n",
        "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT2S"><Period><AdaptationSet mimeType="video/mp2t"><Representation id="1" '
        'bandwidth="1"><BaseURL>{}</BaseURL></Representation></AdaptationSet></Period></MPD>',
        "sdp": f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns={{}}\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\n",
        "imf": '<?xml version="1.0"?><CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/2067-3/2013">{}',
    }[kind]
    monkeypatch.chdir(tmp_path)
    for target in (secret.name, str(secret), f"file:{secret}", address):
        (tmp_path / name).write_text(text.format(target))
        assert reason(tmp_path / name, limits=Limits(seconds=20)) == "unreadable"
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_the_hostile_scripts_above_do_work_without_our_options(make: Make, tmp_path: Path) -> None:
    """Or the test above could not fail."""
    make("secret.ts", TEST_PICTURE, *X264)
    script = tmp_path / "script.mp4"
    script.write_text("ffconcat version 1.0\nfile 'secret.ts'\n")
    command = [str(ffmpeg_binary()), "-v", "error", "-i", f"file:{script}", "-f", "rawvideo", "pipe:1"]
    assert len(subprocess.run(command, capture_output=True, check=True).stdout) == 50 * 96 * 64 * 3 // 2


def test_a_movie_that_refers_to_another_file_does_not_open_it(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A QuickTime file whose samples lie in another one, by an alias; ffmpeg follows it only when told to."""
    data = make("secret.mov", TEST_PICTURE, *X264).read_bytes()
    own = b"\0\0\0\x0curl \0\0\0\x01"
    alias = _box(b"alis", bytes(14) + b"\x01v" + bytes(38) + b"\x0asecret.mov" + bytes(69) + b"\0\1\0\1" + bytes(16))
    alias = _box(b"alis", alias[8:] + b"\0\2\0\x0cv:secret.mov\xff\xff\0\0")
    data = _grow_boxes(
        data.replace(own, alias), (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"), len(alias) - 12
    )
    samples, index = data.index(b"mdat") + 4, data.index(b"moov") - 4
    path = tmp_path / "hostile.mov"
    path.write_bytes(data[:samples] + bytes(index - samples) + data[index:])
    monkeypatch.chdir(tmp_path)
    reason(path)
    reason(Path(path.name))
    ffmpeg("-xerror", "-enable_drefs", "1", "-i", path.name, "-f", "null", "-")  # or this test could not fail


def _box(kind: bytes, content: bytes) -> bytes:
    return (8 + len(content)).to_bytes(4, "big") + kind + content


def _grow_boxes(data: bytes, kinds: tuple[bytes, ...], by: int) -> bytes:
    """The boxes that lie in one another around something that grew."""
    out, at = bytearray(data), 0
    for kind in kinds:
        at = out.index(kind, at)
        out[at - 4 : at] = (int.from_bytes(out[at - 4 : at], "big") + by).to_bytes(4, "big")
    return bytes(out)


def test_a_hostile_index_ends_soon_and_only_rejects_its_file(tmp_path: Path) -> None:
    nested = _box(b"mvhd", b"") + _box(b"trak", b"")
    for _ in range(3000):
        nested = _box(b"mdia", nested)
    start = _box(b"ftyp", b"isom" + bytes(4))
    path = tmp_path / "hostile.mp4"
    for content in (
        start + _box(b"moov", _box(b"trak", nested)),
        start + _box(b"moov", _box(b"mvhd", b"")),
        start + _box(b"moov", _box(b"trak", _box(b"edts", _box(b"elst", b"\0\0\0\0\xff\xff\xff\xff")))),
        start + _box(b"free", b"") * 4_000_000,
        b"\x1a\x45\xdf\xa3\x80" + b"\xec\x80" * 4_000_000,
        b"RIFF\0\0\0\0AVI LIST\0\0\0\0hdrl",
        bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c") + bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365"),
    ):
        path.write_bytes(content)
        begin = time.monotonic()
        reason(path, limits=Limits(seconds=10))
        assert time.monotonic() - begin < 15


def test_limits_on_pixels_frames_and_bytes_end_in_too_large(make: Make) -> None:
    path = make("v.mp4", TEST_PICTURE, *X264)
    assert reason(path, limits=Limits(pixels=96 * 64 - 1)) == "too-large"
    assert reason(path, limits=Limits(frames=49)) == "too-large"
    assert reason(path, limits=Limits(frame_bytes=49 * 32 * 48 * 3)) == "too-large"
    assert len(decode(path, 25, 32, limits=Limits(pixels=96 * 64, frames=50, frame_bytes=50 * 32 * 48 * 3)).rgb) == 50


def test_a_ribbon_of_a_picture_does_not_grow_beyond_the_limit(make: Make) -> None:
    path = make("ribbon.mkv", "color=red:s=8192x2:r=5:d=1", "-c:v", "ffv1")
    assert reason(path, limits=Limits(pixels=1 << 20)) == "too-large"  # resized it would be 131072 x 32


def test_a_gap_of_years_between_two_frames_does_not_fill_the_memory(make: Make) -> None:
    path = make("gap.mkv", "color=red:s=32x32:r=1:d=2", "-vf", "setpts=N*1e6/TB", *X264, "-fps_mode", "passthrough")
    start = time.monotonic()
    assert reason(path) == "too-large"
    assert time.monotonic() - start < 20


def test_the_memory_of_the_decoder_is_limited(make: Make) -> None:
    path = make("big.mp4", "testsrc2=s=3840x2160:r=5:d=1", *X264)
    assert len(decode(path, 5, 32).rgb) == 5
    assert reason(path, limits=Limits(memory_bytes=200 << 20)) in ("too-large", "decoder-error")


# Misbehaving decoders


@pytest.fixture
def fake_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put a shell script in the place of ffmpeg."""

    def install(script: str) -> None:
        file = tmp_path / "bin" / "ffmpeg"
        file.parent.mkdir()
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
        monkeypatch.setenv("PATH", str(file.parent), prepend=os.pathsep)

    return install


def processes(mark: str) -> list[str]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
        if mark.encode() in command:
            found.append(folder.name)
    return found


@pytest.mark.parametrize("then", ["sleep {mark}", "exit 0"])
def test_a_decoder_that_hangs_is_killed_with_its_children(
    make: Make, fake_ffmpeg: Callable[[str], None], then: str
) -> None:
    path = make("v.mp4", TEST_PICTURE, *X264)
    mark = f"{86400 + os.getpid() / 1e6:.6f}"
    fake_ffmpeg(f"trap '' TERM INT\nsleep {mark} &\n{then.format(mark=mark)}")
    start = time.monotonic()
    assert reason(path, limits=Limits(stall_s=0.5)) == "timeout"
    assert reason(path, limits=Limits(seconds=0.5)) == "timeout"
    assert time.monotonic() - start < 10
    deadline = time.monotonic() + 5
    while processes(mark) and time.monotonic() < deadline:
        time.sleep(0.05)  # the children are reaped by init
    assert processes(mark) == []


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("yes complaint >&2", {"decoder-error", "timeout"}),
        ("yes '' | tr -d '\\n' >&2", {"timeout"}),
        ("tr '\\0' x </dev/zero >&2", {"decoder-error", "timeout"}),
    ],
)
def test_a_decoder_that_never_stops_talking_ends(
    make: Make, fake_ffmpeg: Callable[[str], None], script: str, expected: set[str]
) -> None:
    path = make("v.mp4", TEST_PICTURE, *X264)
    fake_ffmpeg(script)
    assert reason(path, limits=Limits(seconds=3)) in expected


def test_output_that_is_no_picture_and_output_that_never_ends_are_rejected(
    make: Make, fake_ffmpeg: Callable[[str], None], tmp_path: Path
) -> None:
    path = make("v.mp4", TEST_PICTURE, *X264)
    header = "[info] Input #0, mov, from x:\\n[info]   Stream #0:0: Video: h264, yuv420p, 64x32, 25 fps\\n"
    probe = f'case "$*" in *ppm*) ;; *) printf "{header}" >&2; exit 1;; esac\n'
    fake_ffmpeg(probe + "cat /dev/zero")
    assert reason(path) == "decoder-error"
    script = tmp_path / "bin" / "ffmpeg"
    script.write_text(f"#!/bin/sh\n{probe}while :; do printf 'P6\\n2 1\\n255\\n123456'; done\n")
    assert reason(path, limits=Limits(frames=1000)) == "too-large"
    script.write_text(f"#!/bin/sh\n{probe}printf 'P6\\n2 1\\n255\\n123'\n")
    assert reason(path) == "decoder-error"
    script.write_text(f"#!/bin/sh\n{probe}printf 'P6\\n2 1\\n255\\n123456P6\\n1 2\\n255\\n123456'\n")
    assert reason(path) == "decoder-error"


def test_a_decoder_that_crashes_rejects_its_video(make: Make, fake_ffmpeg: Callable[[str], None]) -> None:
    path = make("v.mp4", TEST_PICTURE, *X264)
    fake_ffmpeg(f"kill -{signal.SIGSEGV.value} $$")
    assert reason(path) == "decoder-error"


def test_a_decoder_that_somebody_kills_says_nothing_about_the_video(
    make: Make, fake_ffmpeg: Callable[[str], None]
) -> None:
    path = make("v.mp4", TEST_PICTURE, *X264)
    fake_ffmpeg("kill -9 $$")
    with pytest.raises(RuntimeError, match="killed from outside by SIGKILL"):
        decode(path, 25, 32)


def test_the_decoder_can_write_no_file(make: Make, fake_ffmpeg: Callable[[str], None], tmp_path: Path) -> None:
    path = make("v.mp4", TEST_PICTURE, *X264)
    written = tmp_path / "written"
    fake_ffmpeg(f"sleep 0.3\necho hello > {shlex.quote(str(written))}")
    reason(path)
    assert not written.exists() or written.stat().st_size == 0


# The parts


def test_the_system_ffmpeg_is_preferred_and_named(fake_ffmpeg: Callable[[str], None], tmp_path: Path) -> None:
    bundled = ffmpeg_version()
    fake_ffmpeg("echo 'ffmpeg version 9.9-test Copyright'")
    assert ffmpeg_binary() == tmp_path / "bin" / "ffmpeg"
    assert ffmpeg_version() == "9.9-test" != bundled


def test_a_log_without_end_stays_small() -> None:
    log = FfmpegLog()
    for _ in range(1000):
        log.feed(b"x" * 10_000)
        log.feed(b"line\n" * 100)
    log.close()
    lines = list(log.lines())
    assert len(lines) <= 500
    assert max(map(len, lines)) <= LINE_CHARACTERS


def test_a_rejection_travels_between_processes() -> None:
    rejected = pickle.loads(pickle.dumps(Rejected("truncated", "half of it")))
    assert (rejected.reason, rejected.detail, str(rejected)) == ("truncated", "half of it", "truncated: half of it")
    with pytest.raises(ValueError, match="is not one of"):
        Rejected("because", "x")
