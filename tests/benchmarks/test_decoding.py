"""The cost of decoding by part. Times are not tested."""

from pathlib import Path

import numpy as np
import pytest

from lgd.benchmarks.decoding import PARTS, decode_cost
from lgd.preprocessing.settings import Settings
from lgd.preprocessing.video.decode import decode
from lgd.preprocessing.video.rejections import Rejected


def test_the_frames_are_those_of_decode_and_every_part_is_measured(videos: Path):
    path, settings = videos / "up" / "up_000.mp4", Settings(short_side=32)
    frames, cost = decode_cost(path, settings)
    assert np.array_equal(frames, decode(path, settings.fps, 32).rgb)
    assert min(getattr(cost, part) for part in PARTS) >= 0
    assert min(cost.start, cost.wall_s) > 0


def test_a_video_that_cannot_be_decoded_is_rejected(tmp_path: Path):
    (tmp_path / "broken.mp4").write_bytes(b"text, not video" * 50)
    with pytest.raises(Rejected):
        decode_cost(tmp_path / "broken.mp4", Settings())
