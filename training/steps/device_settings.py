"""How the step runs on the device of a worker: what is decided there and does not change the result, apart from
rounding, and the settings of PyTorch's libraries."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist

from lgd.training.models.config import Convolutions
from lgd.training.models.convolutions import set_convolutions, usable_convolutions
from lgd.training.models.lgd import Network
from lgd.training.recipes import TrainConfig
from lgd.training.steps.activation_memory import StepMemory, fits, free_memory, step_memory
from lgd.training.steps.compile import compile_network, compiles
from lgd.training.steps.cuda_graph import uses_graph
from lgd.training.steps.step_groups import StepGroups

GB = 1e9


@dataclass(frozen=True)
class StepSettings:
    """How the step runs."""

    device: str
    """Name of the GPU, or "CPU"."""
    compiled: bool
    """Whether the stem and the blocks are compiled by torch.compile."""
    not_compiled: str
    """If `auto` does not compile on a GPU: what is missing."""
    convolutions: Convolutions
    """How convolutions are computed."""
    slow_cudnn: bool
    """Whether 2d replaces 3d because of the version of cuDNN."""
    checkpointing: bool
    """Whether activations are computed again in the backward pass instead of stored."""
    memory: StepMemory | None
    """Estimate for the step with stored activations, for which `auto` has decided; None if the user has."""
    free: int
    """Memory that the step may use, bytes; 0 if the user has decided."""
    graph: bool
    """Whether shares are computed by CUDA graphs."""
    no_graph: str
    """If `auto` uses no graph on a GPU: the reason."""

    def __str__(self) -> str:
        """Return a line of text."""
        return f"step on {self.device}: " + "; ".join([self._compiled(), self._convolutions(), *self._more()])

    def _compiled(self) -> str:
        if self.compiled:
            return "blocks compiled by torch.compile, which takes minutes in the first step"
        return f"not compiled: --compile needs {self.not_compiled}" if self.not_compiled else "not compiled"

    def _convolutions(self) -> str:
        if not self.slow_cudnn:
            return f"{self.convolutions} convolutions"
        version = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        return (
            f"2d convolutions, because cuDNN {version} is older than 9.15 and computes bfloat16 "
            "3D convolutions slowly or wrongly"
        )

    def _more(self) -> list[str]:
        parts = [f"activations {'recomputed' if self.checkpointing else 'stored'}"]
        if self.memory is not None:
            parts[0] += f": storing them needs about {self.memory.total / GB:.1f} GB of {self.free / GB:.1f} GB"
        if self.graph:
            parts.append("forward and backward pass in a CUDA graph after the first steps")
        elif self.no_graph:
            parts.append(f"no CUDA graph ({self.no_graph})")
        return parts


def prepare_step(
    config: TrainConfig,
    network: Network,
    groups: StepGroups,
    *,
    classes: int,
    device: torch.device,
    workers: int,
    local_workers: int,
) -> StepSettings:
    """Decide how the step runs on this worker, and set it. All workers must call it at the same time.

    local_workers: number of workers on this node. Raises UserError for what a user asks for and is not possible."""
    compiled, not_compiled = compiles(config.compile, device)
    graph, no_graph = uses_graph(config.cuda_graph, config, groups, device=device, workers=workers)
    convolutions = usable_convolutions(config.model.convolutions, config.precision, device)
    setting, memory, free = config.model.checkpoint_activations, None, 0
    checkpointing = setting is True
    if setting == "auto":
        share = -(-config.batch_size // workers)
        clips = min(config.micro_batch_size or share, share)
        memory, free = step_memory(config, classes, clips), free_memory(device, local_workers)
        # The backward pass adds sums over workers only if it recomputes activations: all workers must do the same.
        checkpointing = _on_any_worker(not fits(memory, free), device, workers)
    set_convolutions(network, convolutions)
    network.checkpointing = checkpointing
    if compiled:
        compile_network(network, device)
    use_float32()
    torch.backends.cudnn.benchmark = True
    return StepSettings(
        torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        compiled,
        not_compiled,
        convolutions,
        convolutions != config.model.convolutions,
        checkpointing,
        memory,
        free,
        graph,
        no_graph,
    )


def _on_any_worker(condition: bool, device: torch.device, workers: int) -> bool:
    if workers == 1:
        return condition
    count = torch.tensor(float(condition), device=device)
    dist.all_reduce(count)
    return bool(count.item() > 0)


def use_float32() -> None:
    """Let float32 mean float32 on GPUs: no TF32, in products of matrices and in convolutions. bfloat16 is the faster
    precision, and a float32 run has the same losses on a GPU as on a CPU, apart from rounding."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


@contextlib.contextmanager
def fastest_convolutions(enabled: bool) -> Iterator[None]:
    """Let cuDNN measure which of its convolutions is the fastest for each shape, or not. It is worth the time in
    training, where shapes repeat (`prepare_step`), but not in validation, where the frames have many sizes."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = enabled
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
