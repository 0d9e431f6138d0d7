"""The bound of TV-L1 on a GPU."""

import pytest

pytest.importorskip("triton")

from lgd.benchmarks.gpu.flow_batches import bytes_per_iteration, pairs_bound


def test_a_step_moves_fifteen_numbers_a_pixel():
    # 340 x 256 at 4 iterations a step: 20 / 4 + 1/2 + 3/4 steps of 60 bytes, and 44 bytes before, in 20 iterations.
    traffic = bytes_per_iteration(340, 256)
    assert traffic.count == 4
    assert traffic.memory == pytest.approx((6.25 * 60 + 44) / 20)
    # 5 x 6 tiles of 64 x 64 with 8 pixels in common: of 256 rows 64 x 4 + 32 are loaded, of 340 columns 64 x 5 + 60.
    assert traffic.overlap == pytest.approx(30 * 64 * 64 / (340 * 256))
    loaded = (64 * 4 + 32) / 256 * (64 * 5 + 60) / 340
    assert traffic.requested == pytest.approx((6.25 * (36 * loaded + 24) + 44) / 20)


def test_the_bound_in_pairs_per_second_is_above_the_goals():
    assert 12_000 < pairs_bound(3.0e12, 160, 120) < 40_000
    assert 3_000 < pairs_bound(3.0e12, 340, 256) < 8_000
