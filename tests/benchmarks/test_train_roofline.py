"""The bound of a training step, compared with a calculation by hand and with the table of the specification."""

import pytest

from lgd.benchmarks.train_roofline import MEMORY_TB_PER_S, REACHABLE_TFLOPS, step_cost
from lgd.training.models.config import ModelConfig
from lgd.training.models.zoo import count


def test_the_cost_of_lgd3d_r50_is_that_of_the_table():
    cost = step_cost(ModelConfig("lgd3d_r50"), 400, 3)
    assert cost.forward_flop == pytest.approx(45.1e9, rel=0.005)
    assert cost.step_flop == pytest.approx(134.4e9, rel=0.005)
    for measured, expected in ((cost.eager_bytes, (2327, 1193, 154)), (cost.fused_bytes, (1857, 499, 77))):
        assert list(measured.values()) == pytest.approx([size * 1e6 for size in expected], rel=0.02)
    bounds = {
        (card, fused): cost.clips_per_s(card, fused=fused) for card in REACHABLE_TFLOPS for fused in (False, True)
    }
    assert bounds == pytest.approx(
        {("H100", False): 717, ("H100", True): 1020, ("H200", False): 976, ("H200", True): 1358}, rel=0.02
    )
    assert cost.clips_per_s("H100", fused=True, overlapped=True) == pytest.approx(1233, rel=0.02)
    assert cost.clips_per_s("H200", fused=True, overlapped=True) == pytest.approx(1767, rel=0.02)
    assert MEMORY_TB_PER_S.keys() == REACHABLE_TFLOPS.keys()


@pytest.mark.parametrize("name", ["lgd3d_nano", "lgd2d_r50"])
def test_the_operations_are_two_per_multiply_accumulate(name: str):
    config = ModelConfig(name)
    cost = step_cost(config, 10, 2)
    assert cost.forward_flop == pytest.approx(2e9 * count(config, 10, 2).gmac)
    assert 2.5 * cost.forward_flop < cost.step_flop < 3 * cost.forward_flop
    assert all(cost.fused_bytes[kind] < size for kind, size in cost.eager_bytes.items() if kind != "pools")
    assert step_cost(config, 10, 2, size=2 * config.family.size).forward_flop > 3.8 * cost.forward_flop
