"""Whole files in which other streams outlast the picture or begin before it, and files that are really truncated."""

import os
from pathlib import Path

import pytest

from lgd.preprocessing.video.completeness import check_complete
from lgd.preprocessing.video.containers import read_container
from lgd.preprocessing.video.decode import decode
from lgd.preprocessing.video.ffmpeg_child import open_video
from lgd.preprocessing.video.probe import probe
from lgd.preprocessing.video.rejections import Limits, Rejected
from tests.preprocessing.video.generated_videos import TEST_VIDEO, X264, Make, ffmpeg, reason

LONG_SOUND = ("-f", "lavfi", "-i", "sine=d=6", "-map", "0", "-map", "1")
MPEG2, WMV2, THEORA = ("-c:v", "mpeg2video"), ("-c:v", "wmv2"), ("-c:v", "libtheora")
FRAGMENTS = ("-movflags", "frag_keyframe+empty_moov")


@pytest.mark.parametrize(
    ("name", "options", "detected"),
    [
        ("v.flv", (*X264, "-c:a", "aac"), True),
        ("v.wmv", (*WMV2, "-c:a", "wmav2"), True),
        ("v.mp4", (*X264, "-c:a", "aac", *FRAGMENTS), True),
        ("v.ts", (*MPEG2, "-c:a", "mp2"), False),
        ("v.mpg", (*MPEG2, "-c:a", "mp2"), False),
        ("v.ogv", (*THEORA, "-c:a", "libvorbis"), False),
        ("v.nut", ("-c:v", "mpeg4", "-c:a", "mp2"), False),
    ],
)
def test_sound_may_outlast_the_picture(make: Make, name: str, options: tuple[str, ...], detected: bool) -> None:
    """detected: the container declares enough to detect that its second half is missing."""
    path = make(name, TEST_VIDEO, *LONG_SOUND, *options)
    assert len(decode(path, 25, 32).rgb) in (50, 51)  # with sound, fragments may begin one frame late
    os.truncate(path, path.stat().st_size // 2)
    if detected:
        assert reason(path) == "truncated"
    else:
        assert len(decode(path, 25, 32).rgb) <= 50  # the sound is cut, or the picture


def test_subtitles_may_outlast_the_picture(make: Make, tmp_path: Path) -> None:
    video, text = make("v.mkv", TEST_VIDEO, *X264), tmp_path / "v.srt"
    text.write_text("1\n00:00:07,000 --> 00:00:09,000\nlate\n")
    for name, codec in (("subtitles.mkv", "srt"), ("subtitles.mp4", "mov_text")):
        ffmpeg("-i", video, "-i", text, "-map", "0", "-map", "1", "-c:v", "copy", "-c:s", codec, tmp_path / name)
        assert len(decode(tmp_path / name, 25, 32).rgb) == 50


def test_the_video_may_begin_after_the_clock_of_the_file(make: Make, tmp_path: Path) -> None:
    whole = make("whole.mp4", "testsrc2=s=48x32:r=25:d=6", *LONG_SOUND, *X264, "-bf", "2", "-g", "75", "-c:a", "aac")
    for name in ("v.mkv", "v.asf", "v.nut", "v.flv", "v.avi"):
        cut, late = tmp_path / f"cut-{name}", tmp_path / f"late-{name}"
        ffmpeg("-i", whole, "-ss", "1", "-c", "copy", cut)  # the video begins with the next key frame, the sound at 1 s
        assert len(decode(cut, 25, 32).rgb) == 75
        ffmpeg("-itsoffset", "2", "-i", whole, "-c", "copy", "-map", "0:v", "-copyts", late)
        assert len(decode(late, 25, 32).rgb) == 150


@pytest.mark.parametrize(("name", "codecs"), [("v.wmv", ("wmv2", "wmav2")), ("v.wtv", ("mpeg2video", "mp2"))])
def test_the_declared_end_may_count_the_delay_of_the_video_twice(
    make: Make, tmp_path: Path, name: str, codecs: tuple[str, str]
) -> None:
    sound, path = make("sound.wav", "sine=d=2"), tmp_path / name
    late = ("-itsoffset", "1.5", "-f", "lavfi", "-i", TEST_VIDEO)
    ffmpeg(*late, "-i", sound, "-c:v", codecs[0], "-c:a", codecs[1], "-fps_mode", "passthrough", "-ac", "2", path)
    with open_video(path) as video:
        source = probe(video, read_container(video), Limits())
    assert source.duration_s is not None
    assert source.duration_s > 4.5  # 2 s that begin after 1.5 s
    assert len(decode(path, 25, 32).rgb) == 50


def test_a_recording_may_begin_between_two_key_frames(make: Make) -> None:
    path = make("v.ts", "testsrc2=s=96x64:r=25:d=6", *MPEG2, "-g", "75")
    data = path.read_bytes()
    path.write_bytes(data[len(data) // 4 // 188 * 188 :])
    assert len(decode(path, 25, 32).rgb) == 75


def test_a_matroska_file_whose_end_is_zeros_is_truncated(make: Make, tmp_path: Path) -> None:
    """A download that reserves the space first has the size of the complete file."""
    whole, path = make("whole.mkv", "testsrc2=s=96x64:r=25:d=4", *X264, "-g", "10"), tmp_path / "late.mkv"
    ffmpeg("-itsoffset", "3", "-i", whole, "-c", "copy", "-copyts", path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    assert reason(path) == "truncated"


def test_frames_that_are_fewer_than_the_packets_are_truncated(make: Make) -> None:
    path = make("v.flv", "testsrc2=s=96x64:r=25:d=4", *LONG_SOUND, *X264, "-c:a", "aac")
    with open_video(path) as video:
        source = probe(video, read_container(video), Limits())
        check_complete(video, source, 4.0, limits=Limits())
        with pytest.raises(Rejected, match=r"truncated: only 2.00 s of the declared 6.\d+ s were decoded"):
            check_complete(video, source, 2.0, limits=Limits())
    os.truncate(path, path.stat().st_size - 10_000)
    with pytest.raises(Rejected, match=r"truncated: the file ends after \d.\d\d s of the declared 6.\d+ s"):
        decode(path, 25, 32)
