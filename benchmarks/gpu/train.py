"""The training step of kinetics400-rgb-r50 on a GPU: LGD-3D R50, 16 frames of 112 x 112, bfloat16, random clips.

Its time is bound by arithmetic and memory: the operations of a step at the speed of matrix products, plus
the bytes of its tensors, each counted once per kernel that reads or writes it, at the speed of a copy. Eager kernels
read and write more than compiled ones, in which batch normalization, ReLU, sums and pooling are one kernel."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from lgd.benchmarks.gpu.card import seconds_each
from lgd.benchmarks.gpu.rows import TRAIN, Measured, Row, goals_of
from lgd.pipeline.console.errors import UserError

RECIPE, CLASSES = "kinetics400-rgb-r50", 400
SHARE_OF_BOUND = 0.8  # the goal on a GPU without goals of its own
GOAL_CLIPS = 64  # the share for which there is a goal
WARM_UP, STEPS = 8, 20  # steps; compiling and recording a graph are part of the warm-up


def bound(measured: Measured, *, fused: bool) -> float | None:
    """Return clips per second at the bound of `lgd.benchmarks.train_roofline`; None if the GPU's speed is unknown."""
    from lgd.benchmarks.train_roofline import step_cost
    from lgd.training.recipes import recipe_named

    if not measured.flops or not measured.bytes_per_s:
        return None
    config = recipe_named(RECIPE)
    cost = step_cost(config.model, CLASSES, 3, size=config.transform.crop)
    moved = sum((cost.fused_bytes if fused else cost.eager_bytes).values())
    return 1 / (cost.step_flop / measured.flops + moved / measured.bytes_per_s)


def speed(measured: Measured, *, variant: str, clips: int) -> list[Row]:
    """Measure the step with a share of `clips` clips. variant: words of `compiled`, `2d` (convolutions) and `graph`
    (CUDA graph); `eager`: none of them."""
    import torch

    _, step, notes = prepare(variant, clips, torch.device("cuda"))
    clips_per_s = clips / seconds_each(step, STEPS, warm_up=WARM_UP)
    if notes:
        raise UserError(notes[0])
    memory = f"{torch.cuda.max_memory_allocated() / 1e9:.1f} GB of memory"
    roof = bound(measured, fused="compiled" in variant)
    return [Row(f"{TRAIN}, {variant}, {clips} clips", clips_per_s, "clips/s", roof, note=memory)]


def prepare(variant: str, clips: int, device: Any) -> tuple[Any, Callable[[], None], list[str]]:
    """Return the network, a function that trains a step, and the lines that it reports if no graph can be recorded."""
    import dataclasses

    import torch

    from lgd.training import recipes
    from lgd.training.steps.cuda_graph import CudaRecorder, GraphedBackward
    from lgd.training.steps.device_settings import prepare_step
    from lgd.training.steps.step import create_network, train_step
    from lgd.training.steps.step_groups import StepGroups

    words = variant.split()
    recipe = recipes.recipe_named(RECIPE)
    model = dataclasses.replace(
        recipe.model, convolutions="2d" if "2d" in words else "3d", checkpoint_activations=False
    )
    config = dataclasses.replace(
        recipe,
        model=model,
        batch_size=clips,
        micro_batch_size=None,
        compile="compiled" in words,
        cuda_graph="graph" in words,
    )
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    network, optimizer = create_network(config, CLASSES, device)
    groups = StepGroups(config, 0, 1, device=device)
    settings = prepare_step(config, network, groups, classes=CLASSES, device=device, workers=1, local_workers=1)
    notes: list[str] = []
    graphs = GraphedBackward(network, config, CudaRecorder(device), report=notes.append) if settings.graph else None
    crop = config.transform.crop
    video = torch.randn(clips, 3, config.model.clip_frames, crop, crop, device=device)
    batch: Any = SimpleNamespace(
        video=video.to(getattr(torch, config.precision), memory_format=torch.channels_last_3d),
        label=torch.randint(CLASSES, (clips,), device=device),
        key=[""] * clips,
        position=list(range(clips)),
    )

    def step() -> None:
        train_step(
            network, network, optimizer, batch=batch, config=config, groups=groups, lr=0.01, workers=1, graphs=graphs
        )

    return network, step, notes


def fastest(measured: Measured) -> list[Row]:
    """Compare the fastest variant with 64 clips with the goal."""
    rows = [row for row in measured.rows if row.name.startswith(TRAIN) and row.name.endswith(f" {GOAL_CLIPS} clips")]
    found = [row for row in rows if row.figure is not None]
    if not found:
        raise UserError(f"no training step with {GOAL_CLIPS} clips could be measured")
    best = max(found, key=lambda row: row.figure or 0.0)
    goals, roof = goals_of(measured.card), bound(measured, fused=True)
    goal = goals.clips_per_s if goals else roof and SHARE_OF_BOUND * roof
    return [Row("train, fastest", best.figure, "clips/s", roof, goal, note=best.name)]
