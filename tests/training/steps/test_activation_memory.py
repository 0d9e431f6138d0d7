"""The estimate of the memory of a step, and what is decided from it."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from lgd.pipeline.loading.transform import Transform
from lgd.training.models.config import ModelConfig
from lgd.training.models.zoo import build
from lgd.training.recipes import recipe_named
from lgd.training.steps.activation_memory import WORKSPACE, StepMemory, fits, free_memory, step_memory

SMALL = replace(
    recipe_named("nano-rgb"), model=ModelConfig("small3d", sketch_dimension=32), transform=Transform(crop=32)
)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("stage", [1, 2])
def test_the_estimate_is_what_a_forward_pass_stores(stage: Any):
    config = replace(SMALL, model=replace(SMALL.model, stage=stage))
    network = build(config.model, 3, channels=3)
    constants = {tensor.untyped_storage().data_ptr() for tensor in (*network.parameters(), *network.buffers())}
    stored: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in constants:
            stored[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = network(torch.randn(2, 3, 16, 32, 32).to(memory_format=torch.channels_last_3d))
        network.loss(output, torch.tensor([0, 1]))
    measured = sum(storage.nbytes() for storage in stored.values())
    estimate = step_memory(config, 3, clips=2)
    assert estimate.activations == pytest.approx(measured, rel=0.02)
    assert estimate.state == 12 * sum(parameter.numel() for parameter in network.parameters())
    assert step_memory(config, 3, clips=6).activations == 3 * estimate.activations


def test_long_clips_of_the_paper_need_about_20_gb():
    long = step_memory(recipe_named("kinetics400-rgb-r50-long"), 400, clips=16)
    assert 19e9 < long.activations < 24e9  # 19 GB without the indices of max pooling
    assert 0.4e9 < long.state < 0.6e9
    assert fits(long, 78 << 30)
    assert not fits(long, 24 << 30)


@pytest.mark.usefixtures("small")
def test_bfloat16_stores_half_of_the_activations():
    whole, half = (step_memory(replace(SMALL, precision=precision), 3, 4) for precision in ("float32", "bfloat16"))
    # Not of the indices of max pooling.
    assert 0.5 < half.activations / whole.activations < 0.65
    assert half.transient == whole.transient / 2


def test_a_step_must_leave_memory_for_libraries():
    memory = StepMemory(state=1 << 30, activations=6 << 30, transient=1 << 30)
    assert memory.total == 8 << 30
    assert fits(memory, 10 * (9 << 30) // 9)
    assert not fits(memory, 9 << 30)
    assert WORKSPACE == 1 << 30


def test_workers_on_a_node_share_its_memory():
    cpu = torch.device("cpu")
    assert free_memory(cpu, 2) == free_memory(cpu, 1) // 2 > 0


def test_frozen_parts_store_nothing_and_dropout_hardly_anything():
    nano = recipe_named("nano-rgb")
    whole, part, heads = (
        step_memory(replace(nano, freeze_until=until), 3, clips=4).activations for until in ("none", "res4", "heads")
    )
    assert 0 < heads < part / 10 < whole / 20
    dropout = replace(nano, model=replace(nano.model, dropout=0.8))
    assert step_memory(dropout, 3, clips=4).activations == whole
