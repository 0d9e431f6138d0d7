"""TV-L1 on a GPU: Triton's kernels and PyTorch's operations against the numba solver."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from lgd.benchmarks.middlebury import read_flo
from lgd.pipeline.dataset.flow_code import encode
from lgd.preprocessing.flow import torch_batches, triton_kernels, triton_solver
from lgd.preprocessing.flow.params import TVL1Params
from lgd.preprocessing.flow.triton_solver import LOOK_ITERATIONS, Tiles
from lgd.preprocessing.flow.triton_support import reason_against_triton
from lgd.preprocessing.flow.tvl1 import compute_codes, compute_flow, compute_flows, warm_up
from tests.preprocessing.flow.textures import mean_difference, moving_texture

MIDDLEBURY = ("RubberWhale", "Grove2", "Urban2", "Venus")
PARAMS = (TVL1Params(), TVL1Params(median_filtering=3), TVL1Params(median_filtering=1, inner_iterations=7))


@pytest.fixture(params=["triton", "torch"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Both solvers for a GPU."""
    if request.param == "torch":
        monkeypatch.setattr(torch_batches, "reason_against_triton", lambda: "this test")
    torch_batches.solver_for.cache_clear()
    yield request.param
    torch_batches.solver_for.cache_clear()


def test_this_machine_can_compile_triton_kernels():
    assert reason_against_triton() is None


def reduced_pair(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return a Middlebury pair at half its size, and its true flow at that size in pixels."""
    frames = [cv2.imread(str(folder / name), cv2.IMREAD_GRAYSCALE) for name in ("frame10.png", "frame11.png")]
    truth = read_flo(folder / "flow10.flo")
    size = (truth.shape[1] // 2, truth.shape[0] // 2)
    halves = [cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames if frame is not None]
    return np.stack(halves), cv2.resize(truth, size, interpolation=cv2.INTER_NEAREST) / 2


@pytest.mark.parametrize("name", MIDDLEBURY)
def test_middlebury_pairs_have_the_flow_of_numba(data, path, name):
    frames, truth = reduced_pair(data / "flow" / name)
    known = (np.abs(truth) < 1e8).all(axis=-1)
    found, reference = compute_flow(frames, backend="torch", device="cuda")[0], compute_flow(frames)[0]
    errors = [float(np.hypot(*(flow - truth)[known].T).mean()) for flow in (found, reference)]
    assert abs(errors[0] - errors[1]) < 0.005
    assert mean_difference(found, reference) < 0.01


@pytest.mark.parametrize("params", PARAMS, ids=["median 5", "median 3", "no median"])
@pytest.mark.parametrize("size", [(60, 83), (120, 160), (16, 300), (1, 1), (7, 40)])
def test_textures_have_the_flow_of_numba(path, params, size):
    frames = moving_texture(4, *size)
    found = compute_flow(frames, params, "torch", device="cuda")
    assert np.isfinite(found).all()
    assert mean_difference(found, compute_flow(frames, params)) < 0.01


def test_a_pair_alone_has_the_bytes_that_it_has_in_any_batch(path, monkeypatch):
    clips = [moving_texture(9, 60, 83), moving_texture(3, 48, 64), moving_texture(5, 60, 83)[::-1].copy()]
    together = list(compute_flows(clips, backend="torch", device="cuda"))
    monkeypatch.setitem(torch_batches.PIXELS_AT_ONCE, "cuda", 1)
    for clip, flow in zip(clips, together, strict=True):
        assert compute_flow(clip, backend="torch", device="cuda").tobytes() == flow.tobytes()


def test_the_bytes_do_not_depend_on_the_tiles_or_on_the_run(gpu):
    frames = torch.from_numpy(moving_texture(4, 100, 130)).float().to(gpu)
    firsts = torch.arange(3, dtype=torch.int32, device=gpu)
    expected = triton_solver.solve(frames, firsts, TVL1Params())
    for tiles in (Tiles(), Tiles((32, 64), (4, 32)), Tiles((32, 32), (8, 64))):
        solved = triton_solver.solve(frames, firsts, TVL1Params(), tiles=tiles)
        assert torch.equal(solved.iterations, expected.iterations)
        assert torch.equal(solved.flow, expected.flow)


def test_codes_from_the_gpu_are_those_of_the_flow(path):
    clip = moving_texture(9, 60, 83)
    planes, saturated = next(compute_codes([clip], backend="torch", device="cuda", bound=1.5))
    expected, fraction = encode(compute_flow(clip, backend="torch", device="cuda"), 1.5)
    np.testing.assert_array_equal(planes, expected)
    assert saturated == fraction


def test_the_host_waits_for_the_gpu_only_once_per_20_iterations(gpu, monkeypatch):
    frames = torch.from_numpy(moving_texture(4, 60, 83)).float().to(gpu)
    firsts = torch.arange(3, dtype=torch.int32, device=gpu)
    triton_solver.solve(frames, firsts, TVL1Params())  # compiles
    waits = 0

    def all_done(look, all_done=triton_solver._Look.all_done):
        nonlocal waits
        waits += 1
        return all_done(look)

    monkeypatch.setattr(triton_solver._Look, "all_done", all_done)
    torch.cuda.set_sync_debug_mode("error")  # any other wait raises
    try:
        solved = triton_solver.solve(frames, firsts, TVL1Params())
    finally:
        torch.cuda.set_sync_debug_mode("default")
    longest = solved.iterations.max(dim=1).values.sum().item()
    # A warp's last step is repeated, up to 6 iterations; each scale ends with at most two looks that find no work.
    scales, warps = len(solved.iterations), 5
    assert waits <= (longest + 2 * 6 * scales * warps) / LOOK_ITERATIONS + 2 * scales


def test_nothing_is_compiled_after_the_warm_up():
    warm_up("torch", "cuda")

    def compiled() -> int:
        all_kernels = (triton_kernels.iterate, triton_kernels.prepare, triton_kernels.advance)
        return sum(len(cache[0]) for kernel in all_kernels for cache in kernel.device_caches.values())

    before = compiled()
    assert before >= 3
    for size in ((1, 1), (48, 64), (64, 64), (60, 83), (256, 340)):
        for count in (2, 5, 17, 33):
            compute_flow(moving_texture(count, *size), backend="torch", device="cuda")
    assert compiled() == before
