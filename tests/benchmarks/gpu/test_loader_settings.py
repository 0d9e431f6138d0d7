"""What of the benchmark of the loader on a GPU runs without one."""

import subprocess
import sys

import pytest
import torch

from lgd.benchmarks.gpu import loader_settings
from lgd.benchmarks.gpu.loader_settings import CopyCost, measure


def test_the_copy_is_a_share_of_the_step():
    cost = CopyCost("float32", copy_ms=0.5, tb_per_s=2.0)
    assert cost.share_of_step(clips_per_s=640) == pytest.approx(0.005)  # 64 clips take 100 ms


@pytest.mark.parametrize(("width", "height"), [(160, 120), (340, 256)])
def test_the_graph_is_measured_on_the_cpu_too(monkeypatch: pytest.MonkeyPatch, width: int, height: int):
    for name, value in {"CLIPS": 2, "FRAMES": 2, "PICTURES": 3, "WARM_UP": 1, "MEASURED": 2}.items():
        monkeypatch.setattr(loader_settings, name, value)
    assert measure(width, height, threads=1, load=0.65, fancy=True, device=None) > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_message_is_one_line():
    done = subprocess.run(
        [sys.executable, "-m", "lgd.benchmarks.gpu.loader_settings"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (
        1,
        "error: this benchmark needs an NVIDIA GPU that this PyTorch can use\n",
    )
