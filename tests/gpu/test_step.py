"""The training step on a GPU: equal to the CPU's, without waiting; compiled, as a graph, in bfloat16; its memory."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from lgd.pipeline.loading.loader import Batch
from lgd.pipeline.loading.transform import Transform
from lgd.training.recipes import TrainConfig, recipe_named
from lgd.training.steps.activation_memory import step_memory
from lgd.training.steps.cuda_graph import WARM_UP_STEPS, CudaRecorder, GraphedBackward
from lgd.training.steps.device_settings import prepare_step
from lgd.training.steps.optimizer import load_optimizer
from lgd.training.steps.step import create_network, train_step
from lgd.training.steps.step_groups import StepGroups

CLASSES, CPU = 5, torch.device("cpu")
NANO = replace(recipe_named("nano-rgb"), compile=False, cuda_graph=False, transform=Transform(crop=64))
R50 = replace(recipe_named("kinetics400-rgb-r50"), compile=False, cuda_graph=False)


class Trainer:
    """Trains a configuration on random clips, the same on every device."""

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        torch.manual_seed(0)
        self.network, self.optimizer = create_network(config, CLASSES, CPU)
        state = self.network.state_dict()
        self.network, self.optimizer = create_network(config, CLASSES, device)
        self.network.load_state_dict(state)
        self.groups = StepGroups(config, 0, 1, device=device)
        self.settings = prepare_step(
            config, self.network, self.groups, classes=CLASSES, device=device, workers=1, local_workers=1
        )
        self.reports: list[str] = []
        self.graphs = (
            GraphedBackward(self.network, config, CudaRecorder(device), report=self.reports.append)
            if self.settings.graph
            else None
        )

    def batches(self, steps: int) -> Iterator[Batch]:
        """Yield batches whose labels can be learned: the class is the mean of a clip."""
        generator = torch.Generator().manual_seed(1)
        n, crop, frames = self.config.batch_size, self.config.transform.crop, self.config.model.clip_frames
        for step in range(steps):
            label = torch.randint(CLASSES, (n,), generator=generator)
            video = torch.randn(n, 3, frames, crop, crop, generator=generator) + label[:, None, None, None, None]
            yield Batch(
                video.to(self.device).to(memory_format=torch.channels_last_3d),
                label.to(self.device),
                [""] * n,
                list(range(step * n, step * n + n)),
            )

    def step(self, batch: Batch) -> Any:
        return train_step(
            self.network,
            self.network,
            self.optimizer,
            batch=batch,
            config=self.config,
            groups=self.groups,
            lr=self.config.optimizer.lr,
            workers=1,
            graphs=self.graphs,
        )

    def losses(self, steps: int) -> list[float]:
        """Train and return the sums of the losses."""
        totals = [sum(self.step(batch)[0].values()) for batch in self.batches(steps)]
        return torch.stack(totals).tolist()


def small_r50(**fields: Any) -> TrainConfig:
    return replace(R50, batch_size=4, normalization_group=4, **fields)


@pytest.mark.parametrize("convolutions", ["3d", "2d"])
@pytest.mark.parametrize("name", ["nano-rgb", "nano-rgb-com"])
def test_float32_losses_are_those_of_a_cpu(gpu: torch.device, name: str, convolutions: Any):
    recipe = recipe_named(name)
    config = replace(recipe, compile=False, cuda_graph=False, model=replace(recipe.model, convolutions=convolutions))
    assert config.precision == "float32"
    on_cpu, on_gpu = Trainer(config, CPU).losses(3), Trainer(config, gpu).losses(3)
    assert on_gpu == pytest.approx(on_cpu, rel=1e-3)


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("config", [NANO, replace(NANO, micro_batch_size=4, normalization_group=4), small_r50()])
def test_no_step_waits_for_the_gpu(gpu: torch.device, config: TrainConfig, graph: bool):
    trainer = Trainer(replace(config, cuda_graph=graph), gpu)
    *first, last = trainer.batches(WARM_UP_STEPS + 3)
    for batch in first:
        trainer.step(batch)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer.step(last)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert trainer.reports == []


def test_a_step_is_queued_before_it_is_computed(gpu: torch.device):
    trainer = Trainer(NANO, gpu)
    first, second = trainer.batches(2)
    trainer.step(first)
    torch.cuda.synchronize()
    torch.cuda._sleep(4_000_000_000)  # about two seconds
    start = time.monotonic()
    trainer.step(second)
    assert time.monotonic() - start < 1.0
    torch.cuda.synchronize()


@pytest.mark.parametrize(
    "changed",
    [
        lambda config: replace(config, cuda_graph=True),
        lambda config: replace(config, compile=True),
        lambda config: replace(config, compile=True, cuda_graph=True),
        lambda config: replace(config, model=replace(config.model, convolutions="2d")),
        lambda config: replace(config, model=replace(config.model, checkpoint_activations=True)),
        lambda config: replace(config, compile=True, model=replace(config.model, checkpoint_activations=True)),
    ],
    ids=["graph", "compiled", "compiled graph", "2d", "recomputed", "compiled recomputed"],
)
@pytest.mark.parametrize("config", [NANO, small_r50(precision="float32")], ids=["nano", "r50"])
def test_every_variant_has_the_losses_of_the_eager_step(
    gpu: torch.device, config: TrainConfig, changed: Callable[[TrainConfig], TrainConfig]
):
    steps = WARM_UP_STEPS + 3
    eager, other = Trainer(config, gpu), Trainer(changed(config), gpu)
    assert other.losses(steps) == pytest.approx(eager.losses(steps), rel=2e-2)
    assert other.reports == []
    state = eager.network.state_dict()
    for name, value in other.network.state_dict().items():
        if name.endswith("running_mean"):
            torch.testing.assert_close(value, state[name], rtol=5e-2, atol=5e-2, msg=name)
        if name.endswith("num_batches_tracked"):
            assert value == state[name] == steps, name


def test_bfloat16_learns_like_float32(gpu: torch.device):
    curves = {}
    for precision in ("float32", "bfloat16"):
        curves[precision] = Trainer(replace(NANO, precision=precision), gpu).losses(200)
    last = {precision: sum(losses[-20:]) / 20 for precision, losses in curves.items()}
    first = sum(curves["float32"][:10]) / 10
    assert last["float32"] < first / 2, "float32 did not learn"
    assert last["bfloat16"] < last["float32"] + 0.1 * first


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(("name", "clips"), [("kinetics400-rgb-r50", 16), ("kinetics400-rgb-r50-com", 16)])
def test_the_estimate_of_the_memory_is_near_the_peak(gpu: torch.device, name: str, clips: int, checkpointing: bool):
    recipe = recipe_named(name)
    config = replace(recipe, batch_size=clips, compile=False, cuda_graph=False)
    config = replace(config, model=replace(config.model, checkpoint_activations=checkpointing))
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    trainer = Trainer(config, gpu)
    for batch in trainer.batches(2):
        trainer.step(batch)
    peak = torch.cuda.max_memory_allocated() - before
    estimate = step_memory(config, CLASSES, clips).total
    if checkpointing:
        assert peak < 0.6 * estimate
    else:
        assert 0.75 * estimate < peak < 1.15 * estimate


def test_the_state_of_a_fused_optimizer_is_loaded_on_a_cpu(gpu: torch.device):
    trainer = Trainer(NANO, gpu)
    trainer.losses(2)
    assert trainer.optimizer.param_groups[0]["fused"]
    other = Trainer(NANO, CPU)
    load_optimizer(other.optimizer, trainer.optimizer.state_dict())
    assert not other.optimizer.param_groups[0]["fused"]
    other.losses(1)
