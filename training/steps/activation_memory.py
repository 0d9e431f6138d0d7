"""Estimate of the memory of a training step, from the network alone: no tensor is allocated."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lgd.pipeline.dataset.dataset import STREAMS
from lgd.pipeline.node import node_memory
from lgd.training.models.frozen import freeze, set_frozen_modes
from lgd.training.models.lgd import Network
from lgd.training.recipes import TrainConfig

WORKSPACE = 1 << 30  # bytes of the convolutions, and of the decoder of the next batches
USABLE = 0.9  # of the free memory: the allocator loses some between its blocks
STATE_BYTES = 12  # of a parameter: weight, gradient and momentum, float32
COPY_BYTES = 2  # of a parameter's bfloat16 copy


@dataclass(frozen=True)
class StepMemory:
    """Bytes of a training step in which activations are stored."""

    state: int
    """Weights, gradients, momentum; with bfloat16 also the copies of the weights."""
    activations: int
    """What the forward pass stores for the backward pass."""
    transient: int
    """The two largest activations at once: a gradient, and the one that is computed from it."""

    @property
    def total(self) -> int:
        """All of it, without the workspace of libraries."""
        return self.state + self.activations + self.transient


def step_memory(config: TrainConfig, classes: int, clips: int) -> StepMemory:
    """Return the memory of a step of `clips` clips that are computed together.

    The forward pass of one clip runs on the meta device, and PyTorch says which tensors it stores. Activations of
    N x C x T x H x W take 2 bytes a number with bfloat16, all others what they take in float32."""
    with torch.device("meta"):
        # The masks of dropout are small, and are drawn for clips.
        network = Network(replace(config.model, dropout=0.0), classes, STREAMS[config.stream].channels)
    network.to("meta").train()
    freeze(network, config.freeze_until)
    set_frozen_modes(network, config.freeze_until)
    network.checkpointing = False
    constants = {_storage(tensor) for tensor in (*network.parameters(), *network.buffers())}
    stored: dict[int, tuple[Tensor, int]] = {}  # by storage, which lives as long as the tensor

    def add(tensor: Tensor) -> Tensor:
        if _storage(tensor) not in constants:
            size = tensor.untyped_storage().nbytes()
            if config.precision == "bfloat16" and tensor.ndim == 5 and tensor.dtype == torch.float32:
                size //= 2
            stored[_storage(tensor)] = tensor, size
        return tensor

    crop = config.transform.crop
    shape = (1, STREAMS[config.stream].channels, config.model.clip_frames, crop, crop)
    with torch.autograd.graph.saved_tensors_hooks(add, lambda tensor: tensor):
        output = network(torch.empty(shape, device="meta"))
        network.loss(output, torch.zeros(1, dtype=torch.int64, device="meta"))
    largest = sorted(size for tensor, size in stored.values() if tensor.is_floating_point())[-2:]
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return StepMemory(
        parameters * (STATE_BYTES + (COPY_BYTES if config.precision == "bfloat16" else 0)),
        sum(size for _, size in stored.values()) * clips,
        sum(largest) * clips,
    )


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def free_memory(device: torch.device, local_workers: int) -> int:
    """Return the bytes that a worker may use: the free memory of its GPU, or its part of the node's memory.

    local_workers: number of workers on this node."""
    if device.type != "cuda":
        return node_memory() // local_workers
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused


def fits(memory: StepMemory, free: int) -> bool:
    """Return whether a step that stores its activations fits into the free memory."""
    return memory.total + WORKSPACE <= USABLE * free
