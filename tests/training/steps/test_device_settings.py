"""What is decided about the step on the device of a worker."""

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.loading.transform import Transform
from lgd.training.models.config import ModelConfig
from lgd.training.models.lgd import Network, run_part
from lgd.training.models.zoo import build
from lgd.training.recipes import TrainConfig, recipe_named
from lgd.training.steps import device_settings
from lgd.training.steps.activation_memory import StepMemory
from lgd.training.steps.compile import CompiledParts
from lgd.training.steps.device_settings import StepSettings, fastest_convolutions, prepare_step, use_float32

CPU = torch.device("cpu")
SMALL = replace(recipe_named("nano-rgb"), model=ModelConfig("small3d"), transform=Transform(crop=16))
ON_GPU = StepSettings(
    device="NVIDIA H100",
    compiled=True,
    not_compiled="",
    convolutions="3d",
    slow_cudnn=False,
    checkpointing=False,
    memory=StepMemory(1_000_000_000, 20_000_000_000, 2_400_000_000),
    free=78_000_000_000,
    graph=False,
    no_graph="64 clips per worker",
)


@pytest.fixture(autouse=True)
def keep_settings(small: None) -> Iterator[None]:
    """Restore PyTorch's settings after each test."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32
    cudnn.allow_tf32 = matmul.allow_tf32 = True
    yield
    cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = before


def prepared(config: TrainConfig) -> tuple[Network, StepSettings]:
    network = build(config.model, 3, channels=3)
    groups: Any = SimpleNamespace(spread=False)
    return network, prepare_step(config, network, groups, classes=3, device=CPU, workers=1, local_workers=1)


def test_a_cpu_runs_the_step_as_before():
    network, settings = prepared(SMALL)
    assert network.run_part is run_part
    assert not network.checkpointing
    assert (settings.compiled, settings.convolutions, settings.graph) == (False, "3d", False)
    assert str(settings).startswith(
        "step on CPU: not compiled; 3d convolutions; activations stored: storing them needs"
    )


def test_activations_are_recomputed_where_the_memory_is_too_small(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(device_settings, "free_memory", lambda device, workers: 10**8)
    network, settings = prepared(SMALL)
    assert network.checkpointing
    assert "activations recomputed: storing them needs about 0.0 GB of 0.1 GB" in str(settings)
    for choice in (True, False):
        network, settings = prepared(replace(SMALL, model=replace(SMALL.model, checkpoint_activations=choice)))
        assert network.checkpointing is settings.checkpointing is choice
        assert "GB" not in str(settings)


def test_options_of_the_user_are_followed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("lgd.training.steps.compile.missing_for_compiling", lambda device: "")
    network, settings = prepared(replace(SMALL, compile=True, model=replace(SMALL.model, convolutions="2d")))
    assert isinstance(network.run_part, CompiledParts)
    assert network.stem.spatial.conv.as_2d
    assert "blocks compiled by torch.compile" in str(settings)
    assert "2d convolutions" in str(settings)
    with pytest.raises(UserError, match="--cuda-graph true needs a GPU"):
        prepared(replace(SMALL, cuda_graph=True))


def test_the_line_names_what_was_decided_and_why():
    assert str(ON_GPU) == (
        "step on NVIDIA H100: blocks compiled by torch.compile, which takes minutes in the first step; "
        "3d convolutions; activations stored: storing them needs about 23.4 GB of 78.0 GB; "
        "no CUDA graph (64 clips per worker)"
    )
    other = replace(
        ON_GPU, compiled=False, not_compiled="gcc", slow_cudnn=True, convolutions="2d", graph=True, no_graph=""
    )
    for part in ("not compiled: --compile needs gcc", "2d convolutions, because cuDNN", "in a CUDA graph"):
        assert part in str(other)


def test_float32_has_no_tf32_and_cudnn_measures_only_in_training():
    use_float32()
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
    prepared(SMALL)
    assert torch.backends.cudnn.benchmark
    with fastest_convolutions(False):
        assert not torch.backends.cudnn.benchmark
    assert torch.backends.cudnn.benchmark
