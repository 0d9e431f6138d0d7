"""Recordings that were copied into one file: all frames, or a rejection that says where the second one begins."""

import io
import os
from pathlib import Path

import numpy as np
import pytest

from lgd.preprocessing.video import joined
from lgd.preprocessing.video.containers import read_container
from lgd.preprocessing.video.decode import decode
from lgd.preprocessing.video.ffmpeg_child import open_video
from lgd.preprocessing.video.joined import second_recording
from lgd.preprocessing.video.rejections import Rejected
from tests.preprocessing.video.generated_videos import TEST_VIDEO, X264, Make, reason

MPEG4 = ("-c:v", "mpeg4")
NOT_READ_ON = {
    "flv": ("-c:v", "flv1"),
    "nut": MPEG4,
    "wmv": ("-c:v", "wmv2"),
    "ivf": ("-c:v", "libvpx", "-deadline", "realtime"),
    "rm": ("-s", "176x144", "-c:v", "rv20"),
    "y4m": (),
    "mxf": ("-c:v", "mpeg2video"),
    "wtv": ("-c:v", "mpeg2video"),
    "mp4": X264,
    "mov": MPEG4,
    "3gp": ("-s", "176x144", "-c:v", "h263"),
}
READ_ON = {
    "avi": MPEG4,
    "mkv": MPEG4,
    "webm": ("-c:v", "libvpx", "-deadline", "realtime"),
    "ts": ("-c:v", "mpeg2video"),
    "mpg": ("-c:v", "mpeg2video"),
    "ogv": ("-c:v", "libvpx", "-deadline", "realtime"),
    "gif": (),
    "mjpeg": ("-c:v", "mjpeg"),
}


def second_at(path: Path) -> int | None:
    with open_video(path) as video:
        return read_container(video).second_at


@pytest.mark.parametrize("extension", NOT_READ_ON)
def test_a_second_recording_that_ffmpeg_does_not_read_rejects_the_file(make: Make, extension: str) -> None:
    path = make(f"v.{extension}", TEST_VIDEO.replace("d=2", "d=0.6"), *NOT_READ_ON[extension])
    one = path.read_bytes()
    assert second_at(path) is None
    for behind in (bytes(700), os.urandom(700)):  # reserved space, or data of another program
        path.write_bytes(one + behind)
        assert second_at(path) is None
    path.write_bytes(one + one)
    with pytest.raises(Rejected, match=f"decoder-error: a second recording follows at byte {len(one)}, "):
        decode(path, 25, 32, start_s=0.1, end_s=0.3)  # in a part of them even the first frames are wrong


@pytest.mark.parametrize("extension", READ_ON)
def test_a_second_recording_that_ffmpeg_reads_gives_all_frames(make: Make, extension: str) -> None:
    options = READ_ON[extension]
    second = make(f"2.{extension}", f"{TEST_VIDEO.replace('d=2', 'd=0.8')},negate", *options)
    path = make(f"1.{extension}", TEST_VIDEO.replace("d=2", "d=0.6"), *options)
    expected = [decode(each, 25, 32).rgb for each in (path, second)]
    path.write_bytes(path.read_bytes() + second.read_bytes())
    rgb = decode(path, 25, 32).rgb
    assert len(rgb) == sum(map(len, expected)) == 35
    assert np.abs(rgb.astype(int) - np.concatenate(expected)).mean((1, 2, 3)).max() < 3


def test_a_joined_movie_is_distinguished_from_one_that_has_several_parts(make: Make) -> None:
    path = make("v.mp4", TEST_VIDEO, *X264, "-movflags", "frag_keyframe+empty_moov+default_base_moof", "-g", "10")
    assert second_at(path) is None
    assert len(decode(path, 25, 32).rgb) == 50
    one = path.read_bytes()
    index = one[: one.index(b"moof") - 4]
    second_fragment = one.index(b"moof", one.index(b"moof") + 8) - 4
    path.write_bytes(one[:second_fragment] + index + one[second_fragment:])  # a stream that repeats its index
    assert second_at(path) is None
    assert len(decode(path, 25, 32).rgb) == 50
    path.write_bytes(one + one)
    assert second_at(path) == len(one)
    assert reason(path) == "decoder-error"
    path = make("free.mp4", TEST_VIDEO, *X264)
    complete = path.read_bytes()
    index = complete[complete.index(b"moov") - 4 :]
    for behind in (index, b"\0\0\0\x10mdat12345678", b"\0\0\0\x08free" + index):  # remains of an editor
        path.write_bytes(complete + behind)
        assert second_at(path) is None
        assert len(decode(path, 25, 32).rgb) == 50


@pytest.mark.parametrize("block", [64, 65, 100, 1000])
@pytest.mark.parametrize("at", [90, 129, 500])
def test_a_header_is_found_wherever_the_blocks_end(block: int, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joined, "BLOCK_BYTES", block)
    header = b"FLV\x01\x05\0\0\0\x09\0\0\0\0\x12"
    content = header.ljust(at, b"-") + header + bytes(50)
    assert second_recording(io.BytesIO(content), content[:32]) == at
    assert second_recording(io.BytesIO(content.replace(b"\x12\0", b"\x13\0")), content[:32]) is None
    assert second_recording(io.BytesIO(content), b"\0" * 32) is None


def test_holes_of_a_sparse_file_are_not_read(tmp_path: Path) -> None:
    path, hole = tmp_path / "v.flv", 1 << 40
    header = b"FLV\x01\x05\0\0\0\x09\0\0\0\0\x12"
    for second in (b"", header + bytes(50)):
        path.write_bytes(header + bytes(5000))
        os.truncate(path, hole)
        with open(path, "r+b") as file:
            file.seek(hole)
            file.write(second)
            file.flush()
            assert second_recording(file, header + bytes(20), seconds=30) == (hole if second else None)


def test_a_file_that_takes_too_long_to_read_is_rejected() -> None:
    content = b"FLV\x01" + bytes(100)
    with pytest.raises(Rejected, match="timeout: the file is so large that reading it takes longer than -1 s"):
        second_recording(io.BytesIO(content), content[:32], seconds=-1)
