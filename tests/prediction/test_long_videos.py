"""Videos over the limit on frames: only the frames of the clips, and the same ones."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lgd.pipeline.storage.storage import Storage
from lgd.prediction import long_videos
from lgd.prediction.long_videos import NOT_STORED, encode_for_clips
from lgd.preprocessing.annotations.manifest import Video
from lgd.preprocessing.counters import ShardCounters
from lgd.preprocessing.encode import encode_video
from lgd.preprocessing.settings import Settings
from lgd.preprocessing.shard_tar import EncodedVideo
from lgd.preprocessing.video.decode import decode
from lgd.preprocessing.video.rejections import Limits, Rejected, TooManyFrames
from tests.prediction.random_runs import predict
from tests.preprocessing.video.generated_videos import X264, ffmpeg

SETTINGS = Settings(fps=5, short_side=32)
SECONDS = 45
STREAMS = ("rgb", "flow")
USED = {"rgb": [0, 1, 140, 141, 142, 224], "flow": [141, 142, 223]}  # of 225 frames, or 224


def _given(numbers: np.ndarray, length: int) -> np.ndarray:
    return numbers


def encoded(path: Path, used: dict[str, list[int]], limits: Limits) -> dict[str, EncodedVideo]:
    return encode_for_clips(
        Storage(path.parent),
        Video("long", path.name, 0, "long", "given"),
        SETTINGS,
        streams=list(used),
        counters=ShardCounters(),
        limits=limits,
        clip_frames={stream: partial(_given, np.array(numbers)) for stream, numbers in used.items()},
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same frames in a container that finds a moment by seeking, and in one that does not."""
    folder = tmp_path_factory.mktemp("long")
    ffmpeg("-f", "lavfi", "-i", f"testsrc=s=64x48:r=25:d={SECONDS}", *X264, folder / "v.mp4")
    ffmpeg("-i", folder / "v.mp4", "-c", "copy", folder / "v.ts")
    return folder


@pytest.fixture(scope="module")
def complete(folder: Path) -> dict[str, EncodedVideo]:
    """The streams of the complete video."""
    video = Video("long", "v.mp4", 0, "long", "given")
    return encode_video(Storage(folder), video, SETTINGS, streams=STREAMS, counters=ShardCounters())


@pytest.mark.parametrize("name", ["v.mp4", "v.ts"])
@pytest.mark.parametrize("seek_s", [0.1, 1e6])  # seeks are worth it, or never
def test_the_frames_of_the_clips_are_those_of_the_complete_video(
    folder: Path,
    complete: dict[str, EncodedVideo],
    name: str,
    seek_s: float,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(long_videos, "SEEK_S", seek_s)
    monkeypatch.setattr(long_videos, "PIECE", 2)
    seeks: list[dict[str, Any]] = []

    def recorded(*args: Any, **options: Any) -> Any:
        seeks.append(options)
        return decode(*args, **options)

    monkeypatch.setattr(long_videos, "decode", recorded)
    few = encoded(folder / name, USED, Limits(frames=100))
    for stream, all_frames in complete.items():
        frames = few[stream].frames
        assert len(frames) == len(all_frames.frames) == {"rgb": 225, "flow": 224}[stream]
        assert all(frames[number] == all_frames.frames[number] for number in USED[stream])
        assert sum(frame != NOT_STORED for frame in frames) < 12
        description = {**all_frames.description, "source": name, "bytes": [len(frame) for frame in frames]}
        description.pop("saturated", None)
        assert few[stream].description.items() >= description.items()
    assert len(seeks) == {("v.mp4", 0.1): 5, ("v.mp4", 1e6): 1}.get((name, seek_s), 0)  # 1: the end


def test_a_video_within_the_limits_is_encoded_completely(folder: Path, complete: dict[str, EncodedVideo]):
    assert encoded(folder / "v.mp4", {"rgb": [3]}, Limits())["rgb"] == complete["rgb"]


def test_more_memory_than_allowed_is_no_reason_to_reject_a_video(folder: Path, complete: dict[str, EncodedVideo]):
    few = encoded(folder / "v.mp4", {"rgb": [7]}, Limits(frame_bytes=100 * 43 * 32 * 3))["rgb"].frames
    assert few[7] == complete["rgb"].frames[7]
    assert set(few) == {NOT_STORED, few[7]}


def test_few_large_frames_are_in_memory_at_the_same_time(folder: Path, complete: dict[str, EncodedVideo]):
    assert [long_videos._frames_at_once(120, aspect) for aspect in (1, 1.78, 16, 270)] == [256, 256, 256, 23]
    assert long_videos._frames_at_once(4096, 270) == 1
    sizes = [
        long_videos._count_frames(folder / name, SETTINGS, long_videos.long_limits(Limits()))
        for name in ("v.mp4", "v.ts")
    ]
    assert sizes == [(225, 1.5, True), (225, 1.5, False)]  # of 43 x 32 pixels, estimated from 3 x 2
    used = {"flow": np.arange(6)}
    assert list(long_videos._pieces(used, 2)) == [range(0, 3), range(2, 5), range(4, 7)]
    assert list(long_videos._pieces(used, 1)) == [range(n, n + 2) for n in range(6)]


def test_a_video_with_many_bytes_of_frames_is_decoded_for_its_clips(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(long_videos, "COMPLETE_BYTES", 100 * 43 * 32 * 3)
    assert encoded(folder / "v.mp4", {"rgb": [7]}, Limits())["rgb"].frames.count(NOT_STORED) == 224


def test_a_video_of_days_is_rejected_and_one_without_clips_as_by_preprocess(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(long_videos, "MAX_FRAMES", 200)
    for name in ("v.mp4", "v.ts"):
        with pytest.raises(Rejected, match=r"^too-large: the video has more than 200 frames: cut it$"):
            encoded(folder / name, {"rgb": [7]}, Limits(frames=100))
    with pytest.raises(TooManyFrames, match="--max-frames"):
        encoded(folder / "v.ts", {}, Limits(frames=100))


def test_a_long_video_has_the_predictions_of_the_complete_one_and_can_be_drawn(
    videos: Path, runs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    video = next(videos.rglob("spin_000.mp4"))
    before = predict([video], **runs).document()
    monkeypatch.setattr(Limits, "frames", 30)
    out = tmp_path / "out.mp4"
    (row,) = predict([video], **runs, render=str(out)).document()["videos"]
    assert row.pop("render") == str(out)
    assert [row] == before["videos"]
    assert row["frames"] == 40
    assert len(decode(out, 25, 64, limits=Limits(frames=100)).rgb) == 40
