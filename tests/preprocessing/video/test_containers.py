"""Truncated, live and hostile files, detected by the structure of their containers."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from lgd.preprocessing.video.containers import read_container
from lgd.preprocessing.video.decode import decode
from lgd.preprocessing.video.ffmpeg_child import ffmpeg_binary, open_video
from lgd.preprocessing.video.rejections import Limits
from tests.preprocessing.video.generated_videos import TEST_VIDEO, X264, Make, box, reason


@pytest.mark.parametrize("lost", [0.6, 0.1, 1])
@pytest.mark.parametrize(
    "name",
    ["end.mp4", "front.mp4", "v.mov", "v.mkv", "v.webm", "v.avi", "v.wmv", "sound.mp4", "sound.avi", "sound.mkv"],
)
def test_a_truncated_file_is_rejected(make: Make, name: str, lost: float) -> None:
    """lost: a fraction of the bytes, or one byte."""
    codecs = {"webm": ("-c:v", "libvpx", "-deadline", "realtime"), "wmv": ("-c:v", "wmv2")}
    codec = codecs.get(name.split(".")[1], X264)
    sound = ("-f", "lavfi", "-i", "sine=d=2", "-t", "2") if name.startswith("sound") else ()
    front = ("-movflags", "faststart") if name.startswith("front") else ()
    path = make(name, "testsrc2=s=96x64:r=25:d=2", *sound, *codec, *front)
    assert len(decode(path, 25, 32).rgb) in (50, 51)  # with sound, the AVI writer adds an empty frame
    size = path.stat().st_size
    os.truncate(path, size - 1 if lost == 1 else int(size * (1 - lost)))
    assert reason(path) == "truncated"


def test_a_live_recording_that_declares_nothing_is_accepted(make: Make, tmp_path: Path) -> None:
    live = tmp_path / "live.webm"
    with open(live, "wb") as file:
        command = [
            str(ffmpeg_binary()),
            "-v",
            "error",
            "-f",
            "lavfi",
            "-i",
            TEST_VIDEO,
            *X264,
            "-f",
            "matroska",
            "pipe:1",
        ]
        subprocess.run(command, stdout=file, check=True)
    assert len(decode(live, 25, 32).rgb) == 50


def test_data_that_another_program_appended_does_not_truncate_an_mp4(make: Make) -> None:
    """Music players append tags, cameras the data of their sensors."""
    path = make("v.mp4", TEST_VIDEO, *X264)
    complete = path.read_bytes()
    path.write_bytes(complete + b"TAG" + b"a title".ljust(125))
    assert len(decode(path, 25, 32).rgb) == 50
    path.write_bytes(complete + (1000).to_bytes(4, "big") + b"moof")
    assert reason(path) == "truncated"
    path.write_bytes(complete[: complete.index(b"moov") - 4] + b"TAG" + b"a title".ljust(125))
    assert reason(path) == "truncated"


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.avi", "v.wmv", "v.flv"])
def test_a_file_that_has_all_declared_bytes_is_complete(make: Make, name: str) -> None:
    path = make(name, TEST_VIDEO, *(("-c:v", "wmv2") if name == "v.wmv" else X264))
    with open_video(path) as video:
        assert read_container(video).complete
    size = path.stat().st_size
    os.truncate(path, size // 2)
    os.truncate(path, size)  # the second half is zeros
    with open_video(path) as video:
        assert not read_container(video).complete


def test_an_element_that_is_longer_than_any_file_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "v.mkv"
    path.write_bytes(bytes.fromhex("1a45dfa301fffffffffffffe") + bytes(100))
    assert reason(path) == "unreadable"


def test_a_hostile_index_is_rejected_quickly(tmp_path: Path) -> None:
    nested = box(b"mvhd", b"") + box(b"trak", b"")
    for _ in range(3000):
        nested = box(b"mdia", nested)
    start = box(b"ftyp", b"isom" + bytes(4))
    path = tmp_path / "hostile.mp4"
    for content in (
        start + box(b"moov", box(b"trak", nested)),
        start + box(b"moov", box(b"mvhd", b"")),
        start + box(b"moov", box(b"trak", box(b"edts", box(b"elst", b"\0\0\0\0\xff\xff\xff\xff")))),
        start + box(b"free", b"") * 4_000_000,
        b"\x1a\x45\xdf\xa3\x80" + b"\xec\x80" * 4_000_000,
        b"RIFF\0\0\0\0AVI LIST\0\0\0\0hdrl",
        bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c") + bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365"),
    ):
        path.write_bytes(content)
        begin = time.monotonic()
        reason(path, limits=Limits(seconds=10))
        assert time.monotonic() - begin < 15


@pytest.mark.parametrize(
    ("name", "detail"),
    [
        ("v.avi", "the file ends 100 bytes before its declared end ({size} bytes)"),
        ("v.mkv", "the file ends 100 bytes before the end of its segment"),
        ("front.mp4", "the file ends 100 bytes before the end of its 'mdat' box"),
        ("end.mp4", "the file ends 100 bytes before the end of its 'moov' box"),
    ],
)
def test_the_missing_bytes_of_a_truncated_file_are_reported(make: Make, name: str, detail: str) -> None:
    front = ("-movflags", "faststart") if name.startswith("front") else ()
    path = make(name, TEST_VIDEO, *X264, *front)
    size = path.stat().st_size
    with open_video(path) as video:
        assert read_container(video).truncation is None
    os.truncate(path, size - 100)
    with open_video(path) as video:
        assert read_container(video).truncation == detail.format(size=size)


def test_the_declared_duration_is_that_of_the_stream(make: Make) -> None:
    """MP4 numbers its tracks from 1 and declares how long they are; AVI declares when a stream ends."""
    with open_video(make("v.mp4", TEST_VIDEO, *X264)) as video:
        assert read_container(video).durations_s == pytest.approx({1: 2.0}, abs=0.05)
    with open_video(make("v.avi", TEST_VIDEO, *X264)) as video:
        assert read_container(video).ends_s == pytest.approx({0: 2.0}, abs=0.05)


def track(
    number: int, *, shown: int | None, units: int = 200, samples: tuple[tuple[int, int], ...] = ((50, 4),)
) -> bytes:
    """Return a track of an MP4 file, by default of 2 s. units, samples: in 1/100 s, samples as (count, units); shown:
    ms of its edit list."""
    words = b"".join(word.to_bytes(4, "big") for pair in samples for word in pair)
    times = box(b"stts", bytes(4) + len(samples).to_bytes(4, "big") + words)
    header = box(b"mdhd", bytes(12) + (100).to_bytes(4, "big") + units.to_bytes(4, "big") + bytes(4))
    edits = (
        b""
        if shown is None
        else box(b"edts", box(b"elst", bytes(4) + (1).to_bytes(4, "big") + shown.to_bytes(4, "big") + bytes(8)))
    )
    media = box(b"mdia", header + box(b"minf", box(b"stbl", times)))
    return box(b"trak", box(b"tkhd", bytes(12) + number.to_bytes(4, "big") + bytes(68)) + edits + media)


def test_the_tracks_of_an_mp4_are_known_by_their_ids_and_last_no_longer_than_their_samples(tmp_path: Path) -> None:
    header = box(b"mvhd", bytes(12) + (1000).to_bytes(4, "big") + bytes(84))
    tracks = (
        track(7, shown=None)
        + track(3, shown=1500)  # its edit list shows a part
        + track(5, shown=9000)  # an edit list, and a header, of more than there is
        + track(4, units=900, samples=((10, 4), (1, 60)), shown=0)
        + track(8, shown=None)
        + track(8, shown=None)  # not unique
    )
    path = tmp_path / "v.mp4"
    for fragments, expected in ((b"", {7: 2.0, 3: 1.5, 5: 2.0, 4: 1.0}), (box(b"mvex", b""), {})):
        path.write_bytes(box(b"ftyp", b"isom" + bytes(4)) + box(b"moov", header + tracks + fragments))
        with open_video(path) as video:
            assert read_container(video).durations_s == expected
