"""The arithmetic of the scaling prediction."""

import pytest

from lgd.benchmarks.dev.scaling_model import NODES, predict, ring_s, step_bounds

COMPUTE_S = {8: 8.0, 4: 4.4, 2: 2.4, 1: 1.4}


def test_a_ring_sends_every_byte_twice_except_the_nodes_own_share():
    assert ring_s(1, 10**9, 1e9, latency_s=1.0) == 0
    assert ring_s(2, 10**9, 1e9, latency_s=0.0) == pytest.approx(1.0)
    assert ring_s(64, 10**9, 1e9, latency_s=0.0) == pytest.approx(2 * 63 / 64)
    assert ring_s(4, 1000, 1e9, latency_s=0.1) == pytest.approx(6 * 0.1, rel=1e-3)  # one bucket
    assert ring_s(4, 52 * 2**20, 1e30, latency_s=0.1) == pytest.approx(6 * 0.1 * 4)  # of 1, 25, 25 and 1 MB


def test_the_bounds_of_a_step_are_complete_overlap_and_none():
    assert step_bounds(3.0, 1.0) == (3.0, 4.0)  # hidden by 2 s of backward pass
    assert step_bounds(3.0, 5.0) == pytest.approx((6.0, 8.0))


def test_efficiency_is_relative_to_one_node():
    predictions = predict(COMPUTE_S, batch=8, size=10**9, gbit=(8, 80), latency_s=0.0)
    assert len(predictions) == 2 * len(NODES)
    by = {(each.nodes, each.gbit): each for each in predictions}
    one, two, eight = (by[nodes, 8] for nodes in (1, 2, 8))
    assert one.strong is not None
    assert one.strong.efficiency == (1, 1)
    assert one.weak.efficiency == (1, 1)
    assert two.strong is not None  # at 8 Gbit/s the all-reduce takes 1 s
    assert two.strong.share == 4
    assert two.strong.step_s == pytest.approx((4.4, 5.4))
    assert two.strong.efficiency == pytest.approx((8 / 8.8, 8 / 10.8))
    assert two.weak.efficiency == pytest.approx((1, 8 / 9))
    assert by[2, 80].all_reduce_s == pytest.approx(0.1)
    assert eight.strong is not None
    assert eight.strong.share == 1
    assert by[16, 8].strong is None  # more nodes than clips
    assert by[64, 8].weak.efficiency[1] == pytest.approx(8 / (8 + 2 * 63 / 64))
