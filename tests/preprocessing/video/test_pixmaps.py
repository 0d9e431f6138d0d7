"""Frames from the pipe of ffmpeg, also from decoders that misbehave."""

from pathlib import Path

import numpy as np
import pytest

from lgd.preprocessing.video.pixmaps import PpmReader
from lgd.preprocessing.video.rejections import Limits, Rejected
from tests.preprocessing.video.generated_videos import TEST_VIDEO, X264, FakeFfmpeg, Make, reason


def test_output_that_is_not_a_frame_and_endless_output_are_rejected(
    make: Make, fake_ffmpeg: FakeFfmpeg, tmp_path: Path
) -> None:
    path = make("v.mp4", TEST_VIDEO, *X264)
    # ffmpeg puts the separator that `probe` passes as the argument after -dump_separator between the fields.
    header = "[info] Input #0, mov, from x:\\n[info]   Stream #0:0: Video: h264%syuv420p, 64x32%s25 fps\\n"
    separator = 'while [ "$1" != -dump_separator ]; do shift; done'
    probe = f'case "$*" in *ppm*) ;; *) {separator}; printf "{header}" "$2" "$2" >&2; exit 1;; esac\n'
    fake_ffmpeg(probe + "cat /dev/zero")
    assert reason(path) == "decoder-error"
    script = tmp_path / "bin" / "ffmpeg"
    script.write_text(f"#!/bin/sh\n{probe}while :; do printf 'P6\\n2 1\\n255\\n123456'; done\n")
    assert reason(path, limits=Limits(frames=1000)) == "too-large"
    script.write_text(f"#!/bin/sh\n{probe}printf 'P6\\n2 1\\n255\\n123'\n")
    assert reason(path) == "decoder-error"
    script.write_text(f"#!/bin/sh\n{probe}printf 'P6\\n2 1\\n255\\n123456P6\\n1 2\\n255\\n123456'\n")
    assert reason(path) == "decoder-error"


@pytest.mark.parametrize("block", [1, 7, 64, 1000])
def test_frames_are_read_from_blocks_of_any_size(block: int) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 5, 4, 3), dtype=np.uint8)
    data = b"".join(b"P6\n4 5\n255\n" + frame.tobytes() for frame in frames)
    shown: list[np.ndarray] = []
    collector, passer = PpmReader(Limits()), PpmReader(Limits(), shown.append)
    for start in range(0, len(data), block):
        collector.feed(data[start : start + block])
        passer.feed(data[start : start + block])
    assert np.array_equal(collector.frames(), frames)
    assert np.array_equal(shown, frames)
    assert len(passer.frames()) == 0  # none is kept


def test_a_last_frame_that_is_incomplete_is_rejected() -> None:
    reader = PpmReader(Limits())
    reader.feed(b"P6\n4 5\n255\n" + bytes(59))
    with pytest.raises(Rejected, match="ends in the middle of a frame"):
        reader.frames()
