"""Batches of clips for the torch backend."""

import logging

import numpy as np
import pytest
import torch

from lgd.pipeline.dataset.flow_code import encode
from lgd.preprocessing.flow import torch_batches, torch_solver
from lgd.preprocessing.flow.params import TVL1Params
from lgd.preprocessing.flow.tvl1 import compute_codes, compute_flow, compute_flows
from tests.preprocessing.flow.textures import moving_texture, texture

QUICK = TVL1Params(scales=2, warps=1, outer_iterations=2, inner_iterations=5)


def clips() -> list[np.ndarray]:
    frames = moving_texture(7, 20, 30)
    return [frames[:4], frames[2:3], moving_texture(3, 25, 18), frames[3:], frames[:2]]


@pytest.fixture
def batches_of_two_pairs(monkeypatch):
    monkeypatch.setitem(torch_batches.PIXELS_AT_ONCE, "cpu", 2 * 20 * 30)


def test_a_batch_that_is_divided_to_save_memory_gives_the_same_bytes(batches_of_two_pairs):
    expected = [torch_solver.solve(torch.from_numpy(clip).float(), torch.arange(3), QUICK) for clip in clips()[:1]]
    flow = compute_flow(clips()[0], QUICK, "torch", device="cpu")
    assert flow.tobytes() == expected[0].movedim(1, -1).contiguous().numpy().tobytes()


def test_clips_of_any_length_and_size_come_back_in_order(batches_of_two_pairs):
    flows = list(compute_flows(clips(), QUICK, "torch", device="cpu"))
    assert [flow.shape for flow in flows] == [(len(clip) - 1, *clip.shape[1:], 2) for clip in clips()]
    for clip, flow in zip(clips(), flows, strict=True):
        assert compute_flow(clip, QUICK, "torch", device="cpu").tobytes() == flow.tobytes()


def test_codes_are_those_of_the_flow(batches_of_two_pairs):
    bound = 1.2  # some vectors are clipped
    expected = [encode(flow, bound) for flow in compute_flows(clips(), QUICK, "torch", device="cpu")]
    codes = list(compute_codes(clips(), QUICK, "torch", device="cpu", bound=bound))
    assert [saturated for _, saturated in codes] == [saturated for _, saturated in expected]
    assert 0 < codes[0][1] < 1
    for (planes, _), (reference, _) in zip(codes, expected, strict=True):
        assert planes.dtype == np.uint8
        np.testing.assert_array_equal(planes, reference)


@pytest.mark.parametrize("backend", ["numba", "opencv"])
def test_the_other_backends_take_clips_too(backend):
    two = [texture(20, 30)[None], np.stack([texture(20, 30), texture(20, 30, 1)])]
    flows = list(compute_flows(two, QUICK, backend))
    assert [flow.shape for flow in flows] == [(0, 20, 30, 2), (1, 20, 30, 2)]
    for (planes, _), flow in zip(compute_codes(two, QUICK, backend, bound=5), flows, strict=True):
        np.testing.assert_array_equal(planes, encode(flow, 5)[0])


def test_no_clips_have_no_flow():
    assert not list(compute_flows([], QUICK, "torch", device="cpu"))


def test_at_most_two_batches_are_read_ahead(batches_of_two_pairs):
    read = 0

    def counted():
        nonlocal read
        for _ in range(10):
            read += 1
            yield moving_texture(3, 20, 30)  # a batch each

    flows = compute_flows(counted(), QUICK, "torch", device="cpu")
    next(flows)
    assert read <= 4  # one that is returned, one that was solved, one that was uploaded, and the clip after it


def test_flow_that_is_not_finite_is_not_encoded(monkeypatch):
    monkeypatch.setattr(torch_solver, "solve", lambda frames, firsts, _: torch.full((len(firsts), 2, 4, 4), torch.nan))
    torch_batches.solver_for.cache_clear()
    try:
        with pytest.raises(ValueError, match="not finite"):
            list(compute_codes([np.zeros((3, 4, 4), np.uint8)], QUICK, "torch", device="cpu", bound=5))
    finally:
        torch_batches.solver_for.cache_clear()


def test_a_gpu_without_triton_uses_torch_and_says_why(monkeypatch, caplog):
    monkeypatch.setattr(torch_batches, "reason_against_triton", lambda: "there is no C compiler: install gcc")
    torch_batches.solver_for.cache_clear()
    try:
        with caplog.at_level(logging.WARNING):
            assert torch_batches.solver_for("cuda") is torch_solver.solve
            assert torch_batches.solver_for("cuda") is torch_solver.solve
    finally:
        torch_batches.solver_for.cache_clear()
    assert len(caplog.messages) == 1
    assert caplog.messages[0].endswith("there is no C compiler: install gcc")


def test_a_batch_fits_the_memory_of_any_gpu_shared_by_16_tasks(monkeypatch):
    def pixels(gib: float) -> int:
        properties = type("Properties", (), {"total_memory": int(gib * 2**30)})
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
        return torch_batches.pixels_at_once(torch.device("cuda"))

    assert pixels(80) == 2**23
    assert 2**20 < pixels(24) < 2**23
    assert pixels(8) == 2**19
    assert torch_batches.pixels_at_once(torch.device("cpu")) == 2**18
