"""Videos for the tests, made by the ffmpeg that decodes them, and assertions about them."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lgd.preprocessing.video.decode import decode
from lgd.preprocessing.video.ffmpeg_child import ffmpeg_binary
from lgd.preprocessing.video.rejections import REASONS, Rejected

Make = Callable[..., Path]  # (file name, lavfi source, ffmpeg options...) -> the file
FakeFfmpeg = Callable[[str], None]
# Frame n is gray with value n, which ffv1 keeps exactly.
NUMBERED = "nullsrc=s=64x48:r={rate}:d={seconds},format=gbrp,geq=r=N:g=N:b=N"
TEST_VIDEO = "testsrc2=s=96x64:r=25:d=2"
X264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-preset", "ultrafast")


def ffmpeg(*arguments: str | Path) -> None:
    subprocess.run([ffmpeg_binary(), "-v", "error", "-nostdin", *arguments], check=True)


def reason(path: Path, **options: object) -> str:
    """Return the reason for which a video is rejected; its detail must be one line that is the same in every run."""
    with pytest.raises(Rejected) as rejected:
        decode(path, 25, 32, **options)  # type: ignore[arg-type]
    assert rejected.value.reason in REASONS
    assert "\n" not in rejected.value.detail
    assert "/dev/fd" not in rejected.value.detail  # the descriptor number differs from run to run
    return rejected.value.reason


def box(kind: bytes, content: bytes) -> bytes:
    """Return a box of an MP4 or QuickTime file."""
    return (8 + len(content)).to_bytes(4, "big") + kind + content
