"""The speed of the iterations beside the core's. Times are not tested: they depend on the machine."""

import pytest

from lgd.benchmarks import flow_peak
from lgd.benchmarks.flow_peak import FLOP_PER_PIXEL, CorePeak, measure_core, measure_iterations
from tests.preprocessing.flow.textures import moving_texture


def test_shares_are_those_of_the_measured_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(flow_peak, "ROUNDS", 1)
    speed = measure_iterations([moving_texture(2)], CorePeak(gflops=100, division_ns=0.5))
    assert speed.ns_per_pixel > 0
    assert speed.gflops == pytest.approx(FLOP_PER_PIXEL / speed.ns_per_pixel)
    assert speed.peak_share == pytest.approx(speed.gflops / 100)
    assert speed.division_share == pytest.approx(0.5 / speed.ns_per_pixel)


def test_the_core_is_measured(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(flow_peak, "STEPS", 1000)
    core = measure_core()
    assert core.gflops > 0
    assert core.division_ns > 0
