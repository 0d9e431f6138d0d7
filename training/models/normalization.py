"""Batch normalization over groups of clips: the statistics of a clip do not depend on the number of workers.

The global batch of a step is cut into groups of consecutive clips, and each group is normalized by itself, as in ghost
batch normalization (Hoffer et al. 2017). A worker may hold several groups; a group may be spread over several workers,
whose sums are then added, as in SyncBatchNorm.

A clip's sums are computed first (`clip_sums`), then those of its group from N x C numbers in float64. So the heavy
work does not depend on the groups, and a group has the same statistics on one worker and on three.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lgd.training.models import clip_sums


class ClipGroups:
    """The groups of the clips that this worker computes together: k groups of N clips.

    numbers: of the group of each clip, from 0 to k - 1, ascending or not. shared: for each group that is spread over
    several workers, its number and the process group of these workers, in an order that all of them share. Such a
    group may have no clip here. device: of the activations."""

    def __init__(
        self,
        numbers: Sequence[int],
        groups: int,
        *,
        shared: Sequence[tuple[int, dist.ProcessGroup]] = (),
        device: torch.device | str = "cpu",
    ) -> None:
        of_clip = torch.tensor(list(numbers), dtype=torch.int64)
        members = torch.zeros((groups, len(of_clip)), dtype=torch.float64)
        members[of_clip, torch.arange(len(of_clip))] = 1
        self.of_clip = of_clip.to(device, non_blocking=True)
        self.members = members.to(device, non_blocking=True)  # k x N: 1 where the clip belongs to the group
        self.local_count = self.members.sum(1, keepdim=True)  # k x 1, clips
        self.handles = tuple((number, _handle(group)) for number, group in shared)
        count = self.local_count.clone()
        self.count = self.add_shared(count).clamp(min=1)  # k x 1, clips of the group on all workers

    def sums(self, of_clips: Tensor) -> Tensor:
        """Return the sums over the local clips of each group: 2 x N x C, float64 -> 2 x k x C."""
        return self.members @ of_clips

    def add_shared(self, sums: Tensor) -> Tensor:
        """Return the sums over all workers. sums: local, ... x k x C, float64."""
        if not self.handles:
            return sums
        parts = list(sums.unbind(-2))
        for number, handle in self.handles:
            parts[number] = add_over_workers(parts[number], handle)
        return torch.stack(parts, dim=-2)


class GroupedBatchNorm3d(nn.BatchNorm3d):
    """Batch normalization of activations N x C x T x H x W over groups of clips.

    Without groups, and in evaluation mode, it is `nn.BatchNorm3d`, whose parameters and buffers it has. With groups
    (see `set_groups`), the running statistics do not change in the forward pass, but once per step, in
    `update_running_statistics`, by the mean over the step's groups."""

    step_sums: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.groups: ClipGroups | None = None
        self.recording = True
        # Of the step, over the local clips: sums of the groups' means and variances, and of the groups.
        self.register_buffer("step_sums", torch.zeros(2 * channels + 1, dtype=torch.float64), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalized activations, N x C x T x H x W."""
        if self.groups is None or not self.training:
            return super().forward(x)
        groups, elements = self.groups, x.shape[2] * x.shape[3] * x.shape[4]
        x = x.contiguous(memory_format=clip_sums.memory_format(x))
        with torch.no_grad():
            mean, var = clip_sums.moments(x)
            mean, square = groups.add_shared(groups.sums(torch.stack([mean, var + mean.square()]))) / groups.count
            var = (square - mean.square()).clamp(min=0)
            if self.recording:
                self._record(mean, var, groups.count * elements)
        normalized: Tensor = _Normalize.apply(  # type: ignore[no-untyped-call]
            x, self.weight, self.bias, mean, (var + self.eps).rsqrt(), groups
        )
        return normalized

    def _record(self, mean: Tensor, var: Tensor, count: Tensor) -> None:
        """Add the statistics of the groups to `step_sums`; a group on several workers counts once in all.

        mean, var: k x C. count: k x 1, numbers per channel."""
        assert self.groups is not None
        share = self.groups.local_count / self.groups.count
        unbiased = var * count / (count - 1).clamp(min=1)
        # Not by +=, which assigns an attribute: torch.compile refuses that where activations are recomputed.
        self.step_sums.add_(torch.cat([(share * mean).sum(0), (share * unbiased).sum(0), share.sum(0)]))


class _Normalize(torch.autograd.Function):
    """(x - mean) invstd weight + bias, with mean and invstd of each clip's group, as functions of x."""

    @staticmethod
    def forward(  # noqa: PLR0917  # autograd passes no keywords
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, invstd: Tensor, groups: ClipGroups
    ) -> Tensor:
        factor = weight * invstd
        offset = bias - mean * factor
        ctx.save_for_backward(x, weight, mean, invstd)
        ctx.groups = groups
        return clip_sums.scale(x, _of_clips(factor, groups), _of_clips(offset, groups))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, invstd = ctx.saved_tensors
        groups: ClipGroups = ctx.groups
        gradient = gradient.contiguous(memory_format=clip_sums.memory_format(x))
        local = groups.sums(clip_sums.gradient_sums(gradient, x, _of_clips(mean, groups)))
        # The parameters' gradients are local sums, which are reduced over the workers with all the others.
        bias_gradient, weight_gradient = local[0].sum(0), (local[1] * invstd).sum(0)
        total, products = groups.add_shared(local)
        count = groups.count * (x.shape[2] * x.shape[3] * x.shape[4])
        a = weight * invstd
        b = -a * invstd.square() * products / count
        c = -a * total / count - b * mean
        of_x = clip_sums.combine(gradient, x, _of_clips(a, groups), b=_of_clips(b, groups), c=_of_clips(c, groups))
        return of_x, weight_gradient.to(weight.dtype), bias_gradient.to(weight.dtype), None, None, None


def _of_clips(numbers: Tensor, groups: ClipGroups) -> Tensor:
    """Return the numbers of each clip's group, float32: k x C -> N x C."""
    return numbers.float()[groups.of_clip]


def set_groups(network: nn.Module, groups: ClipGroups | None) -> None:
    """Set the groups of the clips of the next forward pass. None: all clips together, as in nn.BatchNorm3d."""
    for norm in _norms(network):
        norm.groups = groups


@torch.no_grad()
def update_running_statistics(network: nn.Module) -> None:
    """Update the running statistics by the mean over the groups of the step, the same on every worker.

    All workers must call it after each step. Nothing changes if no forward pass was in training mode."""
    norms = list(_norms(network))
    sums = torch.cat([norm.step_sums for norm in norms])
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(sums)
    for norm, total in zip(norms, torch.split(sums, [len(norm.step_sums) for norm in norms]), strict=True):
        norm.step_sums.zero_()
        if not norm.training:  # its statistics are frozen
            continue
        assert norm.running_mean is not None
        assert norm.running_var is not None
        assert norm.num_batches_tracked is not None
        assert norm.momentum is not None
        mean, var = (total[:-1] / total[-1]).to(norm.running_mean.dtype).chunk(2)
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(var, norm.momentum)
        norm.num_batches_tracked += 1


def share_running_statistics(network: nn.Module) -> None:
    """Give all workers the running statistics of rank 0. All workers must call it."""
    for norm in _norms(network):
        for statistics in norm.buffers():
            dist.broadcast(statistics, src=0)


@contextmanager
def frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Prevent a second forward pass over the same batch from adding it to the running statistics a second time."""
    norms = [(norm, norm.momentum, norm.num_batches_tracked) for norm in _norms(module)]
    for norm, _, _ in norms:
        norm.momentum, norm.num_batches_tracked, norm.recording = 0.0, None, False
    try:
        yield
    finally:
        for norm, momentum, batches in norms:
            norm.momentum, norm.num_batches_tracked, norm.recording = momentum, batches, True


def _norms(module: nn.Module) -> Iterator[GroupedBatchNorm3d]:
    return (norm for norm in module.modules() if isinstance(norm, GroupedBatchNorm3d))


_process_groups: list[dist.ProcessGroup] = []  # by handle: operators take numbers, not objects


def _handle(group: dist.ProcessGroup) -> int:
    """Return the number of a process group for `add_over_workers`."""
    for handle, known in enumerate(_process_groups):
        if known is group:
            return handle
    _process_groups.append(group)
    return len(_process_groups) - 1


@torch.library.custom_op("lgd::add_over_workers", mutates_args=())
def add_over_workers(x: Tensor, handle: int) -> Tensor:
    """Return the sum of x over the workers of a process group. An operator of its own, so that compiled code keeps it
    as it is."""
    total = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total, group=_process_groups[handle])
    return total


@add_over_workers.register_fake
def _(x: Tensor, handle: int) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)
