"""The training step: no host wait, whatever the options; fixed statistics; parts of a share."""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lgd.pipeline.loading.loader import Batch
from lgd.pipeline.loading.transform import Transform
from lgd.training.models.config import MODELS, Family, ModelConfig
from lgd.training.models.lgd import Network
from lgd.training.recipes import TrainConfig, recipe_named
from lgd.training.steps.step import create_network, share_parts, train_step
from lgd.training.steps.step_groups import StepGroups

META, CPU = torch.device("meta"), torch.device("cpu")
CLIPS, CLASSES = 4, 3
SMALL = replace(
    recipe_named("nano-rgb"),
    model=ModelConfig("tiny3d"),
    batch_size=CLIPS,
    normalization_group=2,
    transform=Transform(crop=16),
)


def changed(**fields: Any) -> TrainConfig:
    """Return the small configuration with other fields; `model_...` are those of the network."""
    model = {name.removeprefix("model_"): fields.pop(name) for name in list(fields) if name.startswith("model_")}
    return replace(SMALL, model=replace(SMALL.model, **model), **fields)


VARIANTS = {
    "rgb": changed(),
    "flow": changed(stream="flow"),
    "com": changed(model_stage=2, model_sketch_dimension=32),
    "long": changed(model_frames=128),
    "2d network": changed(model_name="tiny2d"),
    "none": changed(model_variant="none"),
    "v1": changed(model_variant="v1"),
    "v2": changed(model_variant="v2"),
    "without groups": changed(normalization_group=0),
    "micro-batches": changed(micro_batch_size=2),
    "frozen statistics": changed(freeze_normalization=True),
    "only the heads": changed(freeze_until="heads"),
    "recomputed": changed(model_checkpoint_activations=True),
    "2d convolutions": changed(model_convolutions="2d"),
    "dropout": changed(model_dropout=0.5),
    "gradient norm": changed(optimizer=replace(SMALL.optimizer, max_grad_norm=1.0, head_factor=3.0)),
}


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two families that are smaller than the nano network."""
    monkeypatch.setitem(MODELS, "tiny3d", Family((1, 1, 0, 0), True, "lgd", frames=16, size=16, width=4))
    monkeypatch.setitem(MODELS, "tiny2d", Family((1, 1, 0, 0), False, "lgd", frames=3, size=16, width=4))


class NoWaiting(TorchDispatchMode):
    """Fails for what would make the CPU wait for a GPU: reading a value, copying without `non_blocking`, and computing
    with tensors of both devices."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = str(function)
        assert "_local_scalar_dense" not in name, "a value is read"
        assert "nonzero" not in name, "the size of the result is read"
        result = function(*args, **kwargs)
        tensors = [x for x in torch.utils._pytree.tree_leaves((args, kwargs, result)) if isinstance(x, torch.Tensor)]
        if {x.device.type for x in tensors if x.dim()} == {"cpu", "meta"}:
            assert "copy" in name, f"{name} with tensors of the CPU"
            assert kwargs.get("non_blocking") or True in args, f"{name} is a copy for which the CPU waits"
        return result


def batch_of(config: TrainConfig, device: torch.device, *, clips: int = CLIPS, first: int = 0) -> Batch:
    channels, crop = 3 if config.stream == "rgb" else 2, config.transform.crop
    generator = torch.Generator().manual_seed(first)
    video = torch.randn(clips, channels, config.model.clip_frames, crop, crop, generator=generator).to(device)
    label = (torch.arange(clips) % CLASSES).to(device)
    return Batch(video.to(memory_format=torch.channels_last_3d), label, [""] * clips, list(range(first, first + clips)))


def stepper(config: TrainConfig, device: torch.device) -> tuple[Network, Callable[[Batch], Any]]:
    """Return a network and the function that trains a step of it."""
    torch.manual_seed(0)
    network, optimizer = create_network(config, CLASSES, device)
    groups = StepGroups(config, 0, 1, device=device)

    def step(batch: Batch) -> Any:
        return train_step(network, network, optimizer, batch=batch, config=config, groups=groups, lr=0.01, workers=1)

    return network, step


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.usefixtures("tiny")
def test_no_step_waits_for_a_value(name: str, monkeypatch: pytest.MonkeyPatch):
    config = VARIANTS[name]
    # PyTorch has no autocast for the meta device.
    monkeypatch.setattr("lgd.training.steps.step.autocast", lambda precision, device: contextlib.nullcontext())
    _, step = stepper(config, META)
    batch = batch_of(config, META)
    step(batch)  # the momentum is created
    with NoWaiting():
        losses, correct, grad_norm = step(batch)
    for result in (*losses.values(), correct, grad_norm):
        assert result.device == META
        assert result.shape == ()


@pytest.mark.parametrize("wait", ["item", "copy", "mixed", "nonzero"])
def test_waiting_is_noticed(wait: str):
    x = torch.zeros(3, device=META)
    with pytest.raises((AssertionError, RuntimeError, NotImplementedError)), NoWaiting():
        {
            "item": lambda: x.sum().item(),
            "copy": lambda: torch.zeros(3).to(META),
            "mixed": lambda: x[torch.tensor([0, 1])],
            "nonzero": lambda: x.nonzero(),
        }[wait]()


@pytest.mark.usefixtures("tiny")
def test_parts_of_a_share_have_their_positions_and_clips():
    config = replace(SMALL, batch_size=8, normalization_group=2, micro_batch_size=2)
    batch = batch_of(config, CPU, clips=8, first=8)
    parts = share_parts(StepGroups(config, 0, 1, device=CPU), batch)
    assert [part.positions for part in parts] == [[8, 9], [10, 11], [12, 13], [14, 15]]
    for first, part in zip(range(0, 8, 2), parts, strict=True):
        assert torch.equal(batch.video[part.clips], batch.video[first : first + 2])


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("name", ["micro-batches", "recomputed"])
def test_how_a_step_is_computed_does_not_change_its_result(name: str):
    batch, results = batch_of(SMALL, CPU), []
    for config in (SMALL, VARIANTS[name]):
        network, step = stepper(config, CPU)
        losses, _, grad_norm = step(batch)
        results.append([*losses.values(), grad_norm, *network.state_dict().values()])
    torch.testing.assert_close(*results, rtol=1e-3, atol=1e-5)
