"""The ffmpeg process: file names, limits, and decoders that misbehave."""

import os
import shlex
import signal
import time
from pathlib import Path

import pytest

from lgd.pipeline.console.errors import NodeError
from lgd.preprocessing.video.decode import decode
from lgd.preprocessing.video.ffmpeg_child import ffmpeg_binary, ffmpeg_version
from lgd.preprocessing.video.rejections import Limits
from tests.preprocessing.video.generated_videos import TEST_VIDEO, X264, FakeFfmpeg, Make, reason


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
def test_any_file_name_is_treated_as_a_name(
    make: Make, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name.replace("/", "_")
    make("v.mp4", TEST_VIDEO, *X264).rename(path)
    monkeypatch.chdir(tmp_path)
    for given in (path, Path(path.name)):
        assert decode(given, 25, 32).rgb.shape == (50, 32, 48, 3)


def test_the_memory_of_the_decoder_is_limited(make: Make) -> None:
    path = make("big.mp4", "testsrc2=s=3840x2160:r=5:d=1", *X264)
    assert len(decode(path, 5, 32).rgb) == 5
    assert reason(path, limits=Limits(memory_bytes=200 << 20)) in ("too-large", "decoder-error")


def processes(mark: str) -> list[str]:
    """Return the ids of the processes with a text in their command lines."""
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
def test_a_decoder_that_hangs_is_killed_with_its_child_processes(
    make: Make, fake_ffmpeg: FakeFfmpeg, then: str
) -> None:
    path = make("v.mp4", TEST_VIDEO, *X264)
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
        ("yes message >&2", {"decoder-error", "timeout"}),
        ("yes '' | tr -d '\\n' >&2", {"timeout"}),
        ("tr '\\0' x </dev/zero >&2", {"decoder-error", "timeout"}),
    ],
)
def test_a_decoder_that_writes_endless_messages_is_stopped(
    make: Make, fake_ffmpeg: FakeFfmpeg, script: str, expected: set[str]
) -> None:
    path = make("v.mp4", TEST_VIDEO, *X264)
    fake_ffmpeg(script)
    assert reason(path, limits=Limits(seconds=3)) in expected


def test_a_decoder_that_crashes_rejects_its_video(make: Make, fake_ffmpeg: FakeFfmpeg) -> None:
    path = make("v.mp4", TEST_VIDEO, *X264)
    fake_ffmpeg(f"kill -{signal.SIGSEGV.value} $$")
    assert reason(path) == "decoder-error"


def test_a_decoder_that_is_killed_from_outside_does_not_reject_the_video(make: Make, fake_ffmpeg: FakeFfmpeg) -> None:
    path = make("v.mp4", TEST_VIDEO, *X264)
    fake_ffmpeg("kill -9 $$")
    with pytest.raises(NodeError, match="killed from outside by SIGKILL"):
        decode(path, 25, 32)


def test_the_decoder_cannot_write_a_file(make: Make, fake_ffmpeg: FakeFfmpeg, tmp_path: Path) -> None:
    path = make("v.mp4", TEST_VIDEO, *X264)
    written = tmp_path / "written"
    fake_ffmpeg(f"sleep 0.3\necho hello > {shlex.quote(str(written))}")
    reason(path)
    assert not written.exists() or written.stat().st_size == 0


def test_the_ffmpeg_on_the_path_is_preferred(fake_ffmpeg: FakeFfmpeg, tmp_path: Path) -> None:
    bundled = ffmpeg_version()
    fake_ffmpeg("echo 'ffmpeg version 9.9-test Copyright'")
    assert ffmpeg_binary() == tmp_path / "bin" / "ffmpeg"
    assert ffmpeg_version() == "9.9-test" != bundled
