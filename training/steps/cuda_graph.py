"""The forward and backward pass of a share as one CUDA graph, for small shares.

A step launches some 1,600 kernels. With few clips the GPU computes them faster than the CPU launches them; a graph
launches all of them at once. It computes from fixed buffers, so it is for one size of share with one layout of
normalization groups. What follows, the sum over the workers, the running statistics and the optimizer, are few kernels,
which stay outside: a graph holds no communication.

The first steps of each layout run as usual, on a stream of their own, as PyTorch requires before a graph is recorded:
libraries choose their algorithms in them, and compiled code is compiled. They are steps of the training."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lgd.pipeline.console.errors import UserError
from lgd.training.models.config import Switch
from lgd.training.recipes import TrainConfig
from lgd.training.steps.step_groups import StepGroups

if TYPE_CHECKING:
    from lgd.pipeline.loading.loader import Batch

WARM_UP_STEPS = 3
MAX_GRAPHS = 3  # layouts of a share; others run as usual
MAX_CLIPS = 16  # that `auto` computes by a graph: with more, launching the kernels takes less time than computing them

Result = tuple[dict[str, Tensor], Tensor]  # losses by path, fraction of correct clips
Backward = Callable[[Tensor, Tensor, Any], Result]  # of video, label and parts; leaves the gradients in the parameters


class Recorder(Protocol):
    """How a graph is recorded and replayed; `CudaRecorder`, and a substitute in tests."""

    def warm_up(self, compute: Callable[[], Result]) -> Result:
        """Run what will be recorded."""

    def record(self, compute: Callable[[], Result]) -> tuple[Callable[[], None], Result]:
        """Record it. Returns the function that runs the record, and the tensors in which it leaves its result."""


class CudaRecorder:
    """Records CUDA graphs."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def warm_up(self, compute: Callable[[], Result]) -> Result:
        """Run on the stream on which graphs are recorded."""
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            result = compute()
        current.wait_stream(self._stream)
        return result

    def record(self, compute: Callable[[], Result]) -> tuple[Callable[[], None], Result]:
        """Record without running. Other threads (NCCL, DALI) may use the GPU meanwhile."""
        torch.cuda.empty_cache()  # a graph has its own memory
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            result = compute()
        return graph.replay, result


class _Layout:
    """The shares with one layout: fixed buffers, and the graph after the first steps."""

    def __init__(self, batch: Batch, parts: Any) -> None:
        self.video, self.label = torch.empty_like(batch.video), torch.empty_like(batch.label)
        self.parts = parts
        self.steps = 0
        self.replay: Callable[[], None] | None = None
        self.result: Result | None = None
        self.gradients: list[Tensor | None] = []


class GraphedBackward:
    """Computes the gradients of shares by graphs where it can, and as usual otherwise."""

    def __init__(
        self, network: nn.Module, config: TrainConfig, recorder: Recorder, *, report: Callable[[str], None]
    ) -> None:
        """report: takes a line of text if no graph can be recorded."""
        self._parameters = list(network.parameters())
        self._batch_size, self._recorder, self._report = config.batch_size, recorder, report
        self._layouts: dict[tuple[Any, ...], _Layout] = {}
        self._failed = False

    def __call__(self, batch: Batch, share_parts: Callable[[], Any], compute: Backward) -> Result:
        """Compute the gradients of a share, which has none yet.

        share_parts: returns the parts of the share, which are the same for all shares with one layout. compute: what is
        recorded; it must depend only on its arguments, and must not copy tensors from the CPU."""
        layout = self._layout(batch, share_parts)
        if layout is None:
            return compute(batch.video, batch.label, share_parts())
        if layout.steps < WARM_UP_STEPS:
            layout.steps += 1
            return self._recorder.warm_up(lambda: compute(batch.video, batch.label, layout.parts))
        layout.video.copy_(batch.video, non_blocking=True)
        layout.label.copy_(batch.label, non_blocking=True)
        if layout.replay is None and not self._record(layout, compute):
            return compute(batch.video, batch.label, layout.parts)
        assert layout.replay is not None
        assert layout.result is not None
        layout.replay()
        for parameter, gradient in zip(self._parameters, layout.gradients, strict=True):
            parameter.grad = gradient
        losses, correct = layout.result  # which the next step overwrites
        return {path: loss.clone() for path, loss in losses.items()}, correct.clone()

    def _layout(self, batch: Batch, share_parts: Callable[[], Any]) -> _Layout | None:
        """Return the layout of a share; None if it is computed as usual."""
        if self._failed:
            return None
        positions = tuple(position % self._batch_size for position in batch.position)
        key = (batch.video.shape, batch.video.dtype, batch.video.stride(), positions)
        if key not in self._layouts:
            if len(self._layouts) == MAX_GRAPHS:
                return None
            self._layouts[key] = _Layout(batch, share_parts())
        return self._layouts[key]

    def _record(self, layout: _Layout, compute: Backward) -> bool:
        try:
            layout.replay, layout.result = self._recorder.record(
                lambda: compute(layout.video, layout.label, layout.parts)
            )
        except RuntimeError as error:
            self._failed = True
            self._layouts.clear()
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            self._report(f"the step cannot be recorded as a CUDA graph ({reason}): it runs without, with equal results")
            for parameter in self._parameters:
                parameter.grad = None
            return False
        layout.gradients = [parameter.grad for parameter in self._parameters]
        return True


def uses_graph(
    setting: Switch, config: TrainConfig, groups: StepGroups, *, device: torch.device, workers: int
) -> tuple[bool, str]:
    """Return whether shares are computed by CUDA graphs, the same on every worker; if not, the reason.

    Raises UserError if `true` is not possible on a GPU."""
    clips = -(-config.batch_size // workers)
    obstacle = ""
    if groups.spread:
        obstacle = "normalization groups are spread over workers"
    elif config.model.dropout:
        obstacle = "the numbers that dropout drops are drawn on the CPU"
    if setting is False:
        return False, ""
    if setting is True and device.type != "cuda":
        raise UserError("--cuda-graph true needs a GPU: train with --cuda-graph auto, or on a GPU")
    if setting is True and obstacle:
        raise UserError(f"--cuda-graph true is not possible: {obstacle}; train with --cuda-graph auto")
    if device.type != "cuda":
        return False, ""
    if setting == "auto" and clips > MAX_CLIPS:
        return False, f"{clips} clips per worker"
    return not obstacle, obstacle


def share_start_weights(network: nn.Module) -> None:
    """Give every worker the weights and buffers of rank 0, as DistributedDataParallel does."""
    for tensor in (*network.parameters(), *network.buffers()):
        dist.broadcast(tensor.detach(), src=0)


def add_gradients(network: nn.Module) -> None:
    """Add the gradients of all workers, in place."""
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    parts = torch.split(flat, [gradient.numel() for gradient in gradients])
    torch._foreach_copy_(
        gradients, [part.view(gradient.shape) for part, gradient in zip(parts, gradients, strict=True)]
    )
