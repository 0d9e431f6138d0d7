"""Optical flow of all backends."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays

from lgd.pipeline.console.errors import UsageError, UserError
from lgd.pipeline.dataset.flow_code import encode
from lgd.preprocessing.flow.params import TVL1Params
from lgd.preprocessing.flow.tvl1 import BACKENDS, compute_flow, solver_version, warm_up
from tests.preprocessing.flow.textures import mean_difference, moving_texture, texture

OWN_BACKENDS = ("numba", "torch")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("dx", "dy"), [(2.25, 0), (-2.25, 0), (0, 1.5), (0, -1.5), (-4.0, 3.0)])
def test_flow_is_the_motion_of_the_texture(backend, dx, dy):
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
def test_the_flow_of_a_pair_has_the_same_bytes_in_any_clip_order_and_number_of_threads(backend):
    frames = moving_texture(6)
    flow = compute_flow(frames, backend=backend)
    reversed_order = [compute_flow(frames[i : i + 2], backend=backend)[0] for i in reversed(range(5))]
    assert np.stack(reversed_order[::-1]).tobytes() == flow.tobytes()
    torch.set_num_threads(3)
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda i: compute_flow(frames[i : i + 3], backend=backend), [0, 1, 2, 3] * 2))
    for i, pair in itertools.product(range(8), range(2)):
        assert together[i][pair].tobytes() == flow[i % 4 + pair].tobytes()


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
def test_every_parameter_has_the_effect_that_it_has_in_opencv(change):
    # Few iterations, so that each of them matters; without the border, where OpenCV differs.
    few = TVL1Params(warps=2, inner_iterations=8, outer_iterations=2, epsilon=0)
    frames = np.stack([texture(100, 120), texture(100, 120, 2.6, -1.4)])

    def inside(params: TVL1Params, backend: str) -> np.ndarray:
        return compute_flow(frames, params, backend)[:, 24:-24, 24:-24]

    reference = inside(replace(few, **change), "opencv")
    effect = mean_difference(reference, inside(few, "opencv"))
    for backend in OWN_BACKENDS:
        assert mean_difference(inside(replace(few, **change), backend), reference) < 0.5 * effect


def test_unknown_backends_and_devices_are_rejected():
    frames = moving_texture(2)
    with pytest.raises(UsageError, match="farneback"):
        compute_flow(frames, backend="farneback")
    with pytest.raises(UsageError, match="runs on the CPU"):
        compute_flow(frames, device="cuda")
    for device in ("cuda:99", "tpu", "mps"):
        with pytest.raises(UsageError, match=device):
            compute_flow(frames, backend="torch", device=device)


def test_the_error_of_an_opencv_without_optflow_names_the_package_to_install(monkeypatch):
    monkeypatch.delattr(cv2, "optflow")
    with pytest.raises(UserError, match="opencv-contrib-python-headless"):
        compute_flow(moving_texture(2), backend="opencv")


@pytest.mark.parametrize(
    "frames", [np.zeros((2, 8, 8), np.float32), np.zeros((8, 8), np.uint8), np.zeros((2, 0, 8), np.uint8)], ids=str
)
def test_frames_of_a_different_type_or_shape_are_rejected(frames):
    with pytest.raises(ValueError, match="uint8 T x H x W"):
        compute_flow(frames)


def test_the_solver_version_is_that_of_the_library_that_computes():
    assert solver_version("opencv") == cv2.__version__
    assert torch.__version__ in solver_version("torch", "cpu")
    assert solver_version("torch", "cpu") != solver_version("torch", "cuda")


def test_warm_up_reports_seconds():
    assert 0 < warm_up() < 600
