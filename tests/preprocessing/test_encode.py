from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from lgd.pipeline.dataset.flow_code import default_bound
from lgd.pipeline.storage.storage import Storage
from lgd.preprocessing import encode
from lgd.preprocessing.annotations.manifest import Video
from lgd.preprocessing.counters import ShardCounters
from lgd.preprocessing.encode import encode_video, source_frames
from lgd.preprocessing.flow.tvl1 import compute_codes
from lgd.preprocessing.video.rejections import Rejected
from tests.preprocessing.conftest import SETTINGS

VIDEO = Video("up-up_0", "up/up_0.mp4", 4, "up", "train", start_s=0.2, end_s=0.8)


def test_a_video_becomes_color_frames_and_one_flow_frame_fewer(folder: Path):
    counters = ShardCounters()
    encoded = encode_video(Storage(folder), VIDEO, SETTINGS, streams=("rgb", "flow"), counters=counters)
    rgb, flow = encoded["rgb"], encoded["flow"]
    assert (len(rgb.frames), len(flow.frames)) == (15, 14)
    assert (counters.videos, counters.frames, counters.flow_pairs) == (1, 15, 14)
    assert all(counters.seconds[stage] > 0 for stage in ("decode", "flow", "jpeg"))
    shared = {"key": "up-up_0", "label": 4, "class": "up", "fps": 25.0, "height": 32, "source": "up/up_0.mp4"}
    for one, width, frames in ((rgb, 40, 15), (flow, 80, 14)):
        own = {"width": width, "frames": frames, "start_s": 0.2, "end_s": 0.8, "bytes": [len(f) for f in one.frames]}
        assert one.description.items() >= {**shared, **own}.items()
        images = [np.asarray(cv2.imdecode(np.frombuffer(f, np.uint8), cv2.IMREAD_UNCHANGED)) for f in one.frames]
        assert {image.shape[:2] for image in images} == {(32, width)}
    assert flow.description["bound"] == default_bound(32)
    assert "bound" not in rgb.description


@pytest.mark.parametrize("streams", [("rgb",), ("flow",), ("rgb", "flow")])
def test_the_number_of_decoded_frames_does_not_depend_on_the_streams(folder: Path, streams: tuple[str, ...]):
    encoded = encode_video(Storage(folder), VIDEO, SETTINGS, streams=streams, counters=ShardCounters())
    assert source_frames(encoded) == 15


def test_the_flow_does_not_depend_on_how_many_pairs_are_in_memory_at_the_same_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    chunks: list[int] = []

    def counted(clips: Iterable[np.ndarray], *arguments: Any, **options: Any) -> Iterator[tuple[np.ndarray, float]]:
        for gray in clips:
            chunks.append(len(gray))
            yield from compute_codes([gray], *arguments, **options)

    monkeypatch.setattr(encode, "compute_codes", counted)
    flows = []
    for pixels in (1 << 20, 4 * 32 * 40, 1):
        monkeypatch.setattr(encode, "FLOW_PIXELS", pixels)
        encoded = encode_video(Storage(folder), VIDEO, SETTINGS, streams=("flow",), counters=ShardCounters())
        flows.append(encoded["flow"].frames)
    assert flows[0] == flows[1] == flows[2]
    assert chunks == [15, *[5, 5, 5, 3], *[2] * 14]


def test_a_missing_file_is_rejected_and_not_counted_as_a_video(folder: Path):
    counters = ShardCounters()
    missing = Video("absent", "up/absent.mp4", 4, "up", "train", missing=True)
    with pytest.raises(Rejected, match=r"missing: the file up/absent\.mp4 does not exist"):
        encode_video(Storage(folder), missing, SETTINGS, streams=("rgb",), counters=counters)
    assert counters.done == 0
