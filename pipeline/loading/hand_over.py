"""Hand over batches from DALI to PyTorch.

On the CPU, a batch is handed over without a copy: DALI's dynamic executor gives each output memory of its own, and the
tensor shares its ownership, so that DALI does not write there again before the tensor is freed.

On a GPU this is not enough. When the tensor is freed, DALI reuses the memory in the order of its own CUDA stream, but a
training loop frees a batch as soon as its kernels are *queued*, on PyTorch's stream: the next batch could overwrite
pixels that these kernels still have to read. The batch is therefore copied on PyTorch's stream into PyTorch's memory,
which the kernels can use in order, and DALI's memory is kept until an event on that stream says that the copy is done.
The copy also converts the number type.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch.utils.dlpack import from_dlpack

# Maximum number of batches of which DALI's memory is kept. A copy waits for the steps queued before it, so that this is
# also how many batches the host may be ahead of the GPU.
KEPT_BATCHES = 3


class Event(Protocol):
    """A point in the work queued on a CUDA stream (`torch.cuda.Event`)."""

    def query(self) -> bool:
        """Return whether the GPU has reached it, without waiting."""

    def synchronize(self) -> None:
        """Wait until the GPU has reached it."""


class HandOver(Protocol):
    """Turns outputs of a DALI pipeline into tensors."""

    def tensor(self, frames: Any, dtype: torch.dtype) -> torch.Tensor:
        """Return a batch of frames of one size as a tensor, N x H x W x C. frames: a TensorList of DALI."""

    def close(self) -> None:
        """Free DALI's memory that is still kept."""


def create_hand_over(device: torch.device) -> HandOver:
    """Return the way of handing over batches on this device."""
    if device.type == "cuda":
        return CopyingHandOver(lambda: _record_event(device))
    return SharingHandOver()


class SharingHandOver:
    """Tensors in DALI's memory. For the CPU."""

    def tensor(self, frames: Any, dtype: torch.dtype) -> torch.Tensor:
        """Return a batch; without a copy if it has this number type."""
        return from_dlpack(frames.as_tensor()).to(dtype)  # the batch is one block of memory

    def close(self) -> None:
        """Do nothing."""


class CopyingHandOver:
    """Copies in PyTorch's memory. For a GPU.

    record: records an event on PyTorch's current stream. kept_batches: maximum number of batches whose memory is kept;
    with more, `tensor` waits for the oldest copy."""

    def __init__(self, record: Callable[[], Event], kept_batches: int = KEPT_BATCHES) -> None:
        self._record, self._kept_batches = record, kept_batches
        self._kept: deque[tuple[Event, Any, torch.Tensor]] = deque()  # DALI's memory by the event of its copy

    def tensor(self, frames: Any, dtype: torch.dtype) -> torch.Tensor:
        """Queue the copy of a batch, and free the memory of earlier batches whose copies are done."""
        shared = from_dlpack(frames.as_tensor())
        copy = shared.to(dtype, copy=True)  # one kernel copies and converts
        self._kept.append((self._record(), frames, shared))
        while self._kept and self._kept[0][0].query():
            self._kept.popleft()
        while len(self._kept) > self._kept_batches:
            self._kept[0][0].synchronize()
            self._kept.popleft()
        return copy

    def close(self) -> None:
        """Wait for the copies, and free DALI's memory."""
        while self._kept:
            self._kept[0][0].synchronize()
            self._kept.popleft()


def _record_event(device: torch.device) -> Event:
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    return event
