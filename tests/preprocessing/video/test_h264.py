"""Writing H.264 files."""

import os
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.storage.storage import Storage
from lgd.preprocessing.video.decode import decode
from lgd.preprocessing.video.h264 import h264_writer
from tests.preprocessing.video.generated_videos import FakeFfmpeg

FRAMES = np.stack([np.full((48, 64, 3), 40 + 5 * number, np.uint8) for number in range(30)])


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder of its own, so that a test sees what is left in it."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def write(folder: Path, frames: Iterable[np.ndarray] = FRAMES, fps: float = 25, *, faststart: bool = False) -> Path:
    with h264_writer(Storage(folder), "v.mp4", fps, crf=18, faststart=faststart) as write_frame:
        for frame in frames:
            write_frame(frame)
    return folder / "v.mp4"


@pytest.mark.parametrize("fps", [25, 12.5, 30000 / 1001])
def test_the_written_video_has_the_frames_their_size_and_rate(tmp_path: Path, temporary: Path, fps: float) -> None:
    decoded = decode(write(tmp_path, fps=fps), fps, 48)
    assert (decoded.codec, decoded.width, decoded.height) == ("h264", 64, 48)
    assert decoded.source_fps == pytest.approx(fps, abs=0.01)
    assert decoded.rgb.shape == FRAMES.shape
    assert np.abs(decoded.rgb.astype(int) - FRAMES).mean() < 3
    assert list(temporary.iterdir()) == []


def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    first = write(tmp_path).read_bytes()
    assert write(tmp_path).read_bytes() == first


def test_faststart_puts_the_index_before_the_frames(tmp_path: Path) -> None:
    for faststart in (False, True):
        data = write(tmp_path, faststart=faststart).read_bytes()
        assert (data.index(b"moov") < data.index(b"mdat")) == faststart


def test_a_video_that_is_not_completed_does_not_appear(tmp_path: Path, temporary: Path) -> None:
    def interrupted() -> None:
        with h264_writer(Storage(tmp_path), "v.mp4", 25, crf=18) as write_frame:
            write_frame(FRAMES[0])
            raise KeyError("interrupted")

    with pytest.raises(KeyError, match="interrupted"):
        interrupted()
    assert [path.name for path in tmp_path.iterdir()] == [temporary.name]
    assert list(temporary.iterdir()) == []
    write(tmp_path)
    before = (tmp_path / "v.mp4").read_bytes()
    with pytest.raises(KeyError, match="interrupted"):
        interrupted()
    assert (tmp_path / "v.mp4").read_bytes() == before


def test_an_error_of_ffmpeg_is_one_line(tmp_path: Path, temporary: Path) -> None:
    with pytest.raises(UserError, match=r"cannot write .*v\.mp4.*: width not divisible by 2 \(63x48\)") as error:
        write(tmp_path, FRAMES[:, :, :63])
    assert "\n" not in str(error.value)
    assert not (tmp_path / "v.mp4").exists()
    assert list(temporary.iterdir()) == []


def test_an_ffmpeg_that_fails_in_the_middle_ends_the_writing(
    tmp_path: Path, temporary: Path, fake_ffmpeg: FakeFfmpeg
) -> None:
    fake_ffmpeg("head -c 20000 >/dev/null; echo '[libx264] [error] encoding failed' >&2; exit 3")
    frames = np.repeat(FRAMES, 20, axis=0)  # more than the pipe holds
    with pytest.raises(UserError, match=r": encoding failed \(ffmpeg exit status 3\)$"):
        write(tmp_path, frames)
    assert not (tmp_path / "v.mp4").exists()


def test_an_ffmpeg_that_hangs_is_killed_when_the_caller_fails(tmp_path: Path, fake_ffmpeg: FakeFfmpeg) -> None:
    pid = tmp_path / "pid"
    fake_ffmpeg(f"echo $$ > {pid}.new; mv {pid}.new {pid}; exec sleep 600")

    def interrupted() -> None:
        with h264_writer(Storage(tmp_path), "v.mp4", 25, crf=18) as write_frame:
            write_frame(FRAMES[0])
            while not pid.exists():
                time.sleep(0.01)
            raise KeyError("interrupted")

    start = time.monotonic()
    with pytest.raises(KeyError, match="interrupted"):
        interrupted()
    assert time.monotonic() - start < 60
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lgd.preprocessing.video.h264.shutil.copyfileobj", full)
    with pytest.raises(UserError, match="no space is left on the device"):
        write(tmp_path)
    assert not (tmp_path / "v.mp4").exists()


def test_frames_of_different_sizes_and_no_frames_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a frame of shape"):
        write(tmp_path, [FRAMES[0], FRAMES[0, :32]])
    with pytest.raises(ValueError, match="at least one frame"):
        write(tmp_path, FRAMES[:0])
    assert not (tmp_path / "v.mp4").exists()
