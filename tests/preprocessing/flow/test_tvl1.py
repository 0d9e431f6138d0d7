import itertools
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays

from lgd.pipeline.console.errors import UsageError, UserError
from lgd.pipeline.dataset.flow_code import encode
from lgd.preprocessing.flow import numba_median, torch_solver
from lgd.preprocessing.flow.numba_kernels import LANES
from lgd.preprocessing.flow.params import TVL1Params
from lgd.preprocessing.flow.tvl1 import BACKENDS, compute_flow, solver_version, warm_up

OWN_BACKENDS = ("numba", "torch")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def texture(height: int, width: int, dx: float = 0, dy: float = 0) -> np.ndarray:
    """Waves of many directions and lengths, moved by (dx, dy) pixels: the motion is known exactly."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:height, :width].astype(float)
    image = np.zeros((height, width))
    for _ in range(25):
        length, angle, phase = rng.uniform(7, 50), rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi)
        image += np.sin(2 * np.pi / length * ((x - dx) * np.cos(angle) + (y - dy) * np.sin(angle)) + phase)
    return np.clip(128 + 20 * image, 0, 255).round().astype(np.uint8)


def moving_texture(count: int = 4, height: int = 60, width: int = 83) -> np.ndarray:
    return np.stack([texture(height, width, 1.3 * i, -0.4 * i * i) for i in range(count)])


def mean_difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.hypot(*np.moveaxis(a - b, -1, 0)).mean())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("dx", "dy"), [(2.25, 0), (-2.25, 0), (0, 1.5), (0, -1.5), (-4.0, 3.0)])
def test_flow_points_where_the_texture_went(backend, dx, dy):
    flow = compute_flow(np.stack([texture(96, 112), texture(96, 112, dx, dy)]), backend=backend)
    assert flow.dtype == np.float32
    assert flow.shape == (1, 96, 112, 2)
    inside = flow[0, 8:-8, 8:-8]
    np.testing.assert_allclose(np.median(inside, axis=(0, 1)), (dx, dy), atol=0.06)
    assert np.hypot(*np.moveaxis(inside - (dx, dy), -1, 0)).mean() < 0.1


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_motion_is_exactly_code_128(backend):
    flow = compute_flow(np.stack([texture(40, 50)] * 3), backend=backend)
    assert (encode(flow, 5)[0] == 128).all()
    assert np.abs(flow).max() < 0.01


@pytest.mark.parametrize("backend", OWN_BACKENDS)
def test_flow_differs_from_opencvs_by_less_than_a_tenth_of_a_pixel(backend):
    frames = moving_texture()
    ours, reference = compute_flow(frames, backend=backend), compute_flow(frames, backend="opencv")
    assert mean_difference(ours, reference) < 0.1
    assert np.abs(reference).mean() > 0.5


@pytest.mark.parametrize("backend", OWN_BACKENDS)
def test_mirrored_frames_have_the_mirrored_flow_with_x_negated(backend):
    frames = moving_texture(2)
    flow = compute_flow(frames, backend=backend)
    mirrored = compute_flow(np.ascontiguousarray(frames[..., ::-1]), backend=backend)
    assert mean_difference(mirrored[..., ::-1, :] * np.array([-1, 1], np.float32), flow) < 0.05


@pytest.mark.parametrize("backend", OWN_BACKENDS)
def test_a_pairs_flow_is_the_same_bytes_in_any_clip_order_and_number_of_threads(backend):
    frames = moving_texture(6)
    flow = compute_flow(frames, backend=backend)
    backwards = [compute_flow(frames[i : i + 2], backend=backend)[0] for i in reversed(range(5))]
    assert np.stack(backwards[::-1]).tobytes() == flow.tobytes()
    torch.set_num_threads(3)
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda i: compute_flow(frames[i : i + 3], backend=backend), [0, 1, 2, 3] * 2))
    for i, pair in itertools.product(range(8), range(2)):
        assert together[i][pair].tobytes() == flow[i % 4 + pair].tobytes()


def test_a_batch_that_is_cut_for_memory_gives_the_same_bytes(monkeypatch):
    frames = moving_texture(6)
    whole = compute_flow(frames, backend="torch", device="cpu")
    monkeypatch.setitem(torch_solver.PIXELS_AT_ONCE, "cpu", 2 * frames[0].size)
    assert compute_flow(frames, backend="torch", device="cpu").tobytes() == whole.tobytes()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (4, 4), (17, 5), (5, 17), (16, 16), (20, 300)])
def test_small_and_narrow_frames(backend, size):
    frames = np.random.default_rng(0).integers(0, 256, (3, *size), dtype=np.uint8)
    flow = compute_flow(frames, backend=backend)
    assert flow.shape == (2, *size, 2)
    assert np.isfinite(flow).all()


@settings(max_examples=40, deadline=None)
@given(arrays(np.uint8, array_shapes(min_dims=3, max_dims=3, min_side=2, max_side=24)))
def test_any_frames_have_a_finite_flow(frames):
    flow = compute_flow(frames)
    assert flow.shape == (len(frames) - 1, *frames.shape[1:], 2)
    assert np.isfinite(flow).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_frame_has_no_flow(backend):
    assert compute_flow(texture(20, 30)[None], backend=backend).shape == (0, 20, 30, 2)


@pytest.mark.parametrize(
    "change",
    [
        {"tau": 0.1},
        {"lambda_": 0.05},
        {"theta": 0.6},
        {"scales": 2},
        {"scale_step": 0.5},
        {"warps": 1},
        {"epsilon": 0.1},
        {"inner_iterations": 3},
        {"outer_iterations": 1},
        {"median_filtering": 3},
        {"median_filtering": 1},
    ],
    ids=str,
)
def test_every_parameter_means_what_it_means_to_opencv(change):
    # Few iterations, so that each of them counts; away from the border, where OpenCV differs.
    few = TVL1Params(warps=2, inner_iterations=8, outer_iterations=2, epsilon=0)
    frames = np.stack([texture(100, 120), texture(100, 120, 2.6, -1.4)])

    def inside(params: TVL1Params, backend: str) -> np.ndarray:
        return compute_flow(frames, params, backend)[:, 24:-24, 24:-24]

    reference = inside(replace(few, **change), "opencv")
    of_the_change = mean_difference(reference, inside(few, "opencv"))
    for backend in OWN_BACKENDS:
        assert mean_difference(inside(replace(few, **change), backend), reference) < 0.5 * of_the_change


def test_defaults_are_those_of_opencv():
    opencv, params = cv2.optflow.DualTVL1OpticalFlow_create(), TVL1Params()  # type: ignore[attr-defined]
    assert (opencv.getTau(), opencv.getLambda(), opencv.getTheta(), opencv.getScaleStep(), opencv.getEpsilon()) == (
        params.tau, params.lambda_, params.theta, params.scale_step, params.epsilon,
    )  # fmt: skip
    assert (opencv.getScalesNumber(), opencv.getWarpingsNumber(), opencv.getMedianFiltering()) == (
        params.scales, params.warps, params.median_filtering,
    )  # fmt: skip
    assert (opencv.getInnerIterations(), opencv.getOuterIterations()) == (
        params.inner_iterations, params.outer_iterations,
    )  # fmt: skip


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (9, 31), (23, 70)])
def test_median_filters_are_medians(size, shape):
    field = np.random.default_rng(1).integers(0, 30, (2, *shape)).astype(np.float32)
    reach = size // 2
    padded = np.pad(field, ((0, 0), (reach, reach), (reach, reach)), mode="edge")
    expected = np.median(np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(1, 2)), axis=(-2, -1))
    np.testing.assert_array_equal(torch_solver._median(torch.from_numpy(field)[None], size)[0], expected)

    height, width = shape
    pitch = LANES + -(-width // LANES) * LANES + LANES
    u = np.zeros((2, height + 1, pitch), np.float32)
    u[:, 1:, LANES : LANES + width] = field
    numba_median.median(u, width, size, np.zeros((size + 2, pitch), np.float32))
    np.testing.assert_array_equal(u[:, 1:, LANES : LANES + width], expected)


def test_unknown_backends_and_devices_are_refused():
    frames = moving_texture(2)
    with pytest.raises(UsageError, match="farneback"):
        compute_flow(frames, backend="farneback")
    with pytest.raises(UsageError, match="runs on the CPU"):
        compute_flow(frames, device="cuda")
    for device in ("cuda:99", "tpu", "mps"):
        with pytest.raises(UsageError, match=device):
            compute_flow(frames, backend="torch", device=device)


def test_opencv_without_optflow_is_told_the_wheel(monkeypatch):
    monkeypatch.delattr(cv2, "optflow")
    with pytest.raises(UserError, match="opencv-contrib-python-headless"):
        compute_flow(moving_texture(2), backend="opencv")


@pytest.mark.parametrize(
    "frames", [np.zeros((2, 8, 8), np.float32), np.zeros((8, 8), np.uint8), np.zeros((2, 0, 8), np.uint8)], ids=str
)
def test_frames_of_another_type_or_shape_are_refused(frames):
    with pytest.raises(ValueError, match="uint8 T x H x W"):
        compute_flow(frames)


@pytest.mark.parametrize(
    "change",
    [{"tau": 0}, {"theta": -1}, {"warps": 0}, {"scale_step": 1}, {"epsilon": float("nan")}, {"median_filtering": 7}],
    ids=str,
)
def test_parameters_without_sense_are_refused(change):
    with pytest.raises(UsageError, match=next(iter(change))):
        TVL1Params(**change)


def test_versions_are_those_of_what_computes():
    assert solver_version("opencv") == cv2.__version__
    assert torch.__version__ in solver_version("torch", "cpu")
    assert solver_version("torch", "cpu") != solver_version("torch", "cuda")


def test_warm_up_reports_seconds():
    assert 0 < warm_up() < 600


# What DIGEST_PROGRAM prints. When it changes, solver_version must change too: shards of the old and of the new bytes
# must not mix.
NUMBA_DIGEST = {"1": "2529d53162ff40a9"}
DIGEST_PROGRAM = """
import hashlib, numpy as np
from lgd.preprocessing.flow.tvl1 import BACKENDS, compute_flow
frames = np.random.default_rng(0).integers(0, 256, (3, 45, 70)).cumsum(1) % 256
print(hashlib.sha256(compute_flow(frames.astype(np.uint8)).tobytes()).hexdigest()[:16])
"""


def start_digest(cache: Path, **processor: str) -> subprocess.Popen:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache), **processor}
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", DIGEST_PROGRAM]
    return subprocess.Popen(command, env=environment, cwd=root, stdout=subprocess.PIPE, text=True)


def digest_of(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    return output.strip()


def test_bytes_are_those_of_the_solver_version_on_any_processor_and_with_a_cache_that_is_being_filled(tmp_path):
    # Three start on an empty cache at once, one of them taken for a plain processor without wide vectors.
    starting = [start_digest(tmp_path) for _ in range(2)]
    starting.append(start_digest(tmp_path, NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES=""))
    expected = NUMBA_DIGEST[solver_version("numba")]
    assert [digest_of(process) for process in starting] == [expected] * 3
    cached = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nbc")}
    assert len({path.parents[1] for path in cached}) == 2  # a folder for each of the processors
    assert digest_of(start_digest(tmp_path)) == expected
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nbc")} == cached
    assert not list(tmp_path.rglob("*.tmp.*"))


def test_without_a_folder_to_cache_in_the_flow_is_computed_all_the_same(tmp_path):
    a_file = tmp_path / "file"
    a_file.touch()
    assert digest_of(start_digest(a_file)) == NUMBA_DIGEST[solver_version("numba")]
