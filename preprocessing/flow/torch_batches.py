"""Batches of clips for the solvers on a GPU: cut, uploaded, solved and downloaded, each beside the others.

While a batch is solved, the next one is uploaded and the last one downloaded, on streams of their own and from and to
pinned memory. Nothing waits for the device but the solver's looks (see triton_solver) and the end of a download.
"""

import functools
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lgd.pipeline.console.errors import UsageError
from lgd.pipeline.dataset.flow_code import STEPS, ZERO
from lgd.preprocessing.flow import torch_solver
from lgd.preprocessing.flow.params import TVL1Params
from lgd.preprocessing.flow.triton_support import reason_against_triton

log = logging.getLogger(__name__)

# In all pairs that are solved together, at the finest scale. On a GPU that is 436 pairs of 160 x 120, and about
# BYTES_PER_PIXEL of its memory for each pixel; fewer if TASKS_PER_GPU processes would not fit its memory.
PIXELS_AT_ONCE = {"cpu": 2**18, "cuda": 2**23}
BYTES_PER_PIXEL = 300
TASKS_PER_GPU = 16
CONTEXT_BYTES = 600 << 20  # of CUDA and the libraries in each process

Solve = Callable[[Tensor, Tensor, TVL1Params], Tensor]  # see torch_solver.solve


def flows(clips: Iterable[np.ndarray], params: TVL1Params, device: torch.device) -> Iterator[np.ndarray]:
    """Yield the flow of each clip in order: uint8 T x H x W -> float32 (T - 1) x H x W x 2."""
    for results in _solved(clips, params, device, finish=lambda flow: (flow.movedim(1, -1).contiguous(),)):
        yield results[0]


def codes(
    clips: Iterable[np.ndarray], params: TVL1Params, device: torch.device, *, bound: float
) -> Iterator[tuple[np.ndarray, float]]:
    """Yield what `flow_code.encode` returns for the flow of each clip, in order, computed on the device.

    Raises ValueError if the flow is not finite."""

    def finish(flow: Tensor) -> tuple[Tensor, ...]:
        steps = (flow * float(np.float32(STEPS / bound))).round()
        saturated = (steps.abs() > STEPS).any(1).sum((1, 2))
        planes = (steps.clamp(-STEPS, STEPS) + ZERO).to(torch.uint8)
        return torch.cat([planes[:, 0], planes[:, 1]], -1), saturated, steps.isfinite().all(1).all(-1).all(-1)

    for planes, saturated, finite in _solved(clips, params, device, finish=finish):
        if not finite.all():
            raise ValueError("the flow contains values that are not finite")
        yield planes, float(saturated.sum() / max(planes.size // 2, 1))


def torch_device(name: str | None) -> torch.device:
    """Return the device of that name; without a name, the GPU if there is one. Raises UsageError."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"unknown device {name!r}: choose cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"the torch flow backend runs on cpu or cuda, not on {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"this machine has no device {name!r}: {torch.cuda.device_count()} GPUs are visible")
    return device


def pixels_at_once(device: torch.device) -> int:
    """Return the maximum number of pixels in a batch."""
    most = PIXELS_AT_ONCE[device.type]
    if device.type == "cpu":
        return most
    share = torch.cuda.get_device_properties(device).total_memory // TASKS_PER_GPU - CONTEXT_BYTES
    return min(most, max(share // BYTES_PER_PIXEL, most // 16))


@functools.cache
def solver_for(device_type: str) -> Solve:
    """Return the solver for a type of device: Triton's kernels on a GPU, if they can be compiled."""
    if device_type == "cpu":
        return torch_solver.solve
    if reason := reason_against_triton():
        log.warning("the flow is computed without Triton, which takes many times as long: %s", reason)
        return torch_solver.solve
    from lgd.preprocessing.flow import triton_solver  # imports Triton

    def solve(frames: Tensor, firsts: Tensor, params: TVL1Params) -> Tensor:
        return triton_solver.solve(frames, firsts, params).flow

    return solve


@dataclass(frozen=True)
class _Piece:
    """Consecutive frames of a clip whose pairs are in one batch; last: the clip ends with it."""

    frames: np.ndarray
    last: bool


def _solved(
    clips: Iterable[np.ndarray],
    params: TVL1Params,
    device: torch.device,
    *,
    finish: Callable[[Tensor], tuple[Tensor, ...]],
) -> Iterator[list[np.ndarray]]:
    """Solve clips in batches; yield for each clip what `finish` makes of the flow of its pairs (N x 2 x H x W)."""
    transfers = _Transfers(device)
    solve = solver_for(device.type)
    uploads: deque[tuple[list[_Piece], Callable[[], tuple[Tensor, Tensor]]]] = deque()
    downloads: deque[tuple[list[_Piece], Callable[[], list[np.ndarray]]]] = deque()
    parts: list[list[np.ndarray]] = []  # of the clip whose last piece is not downloaded yet

    def solve_next() -> None:
        pieces, uploaded = uploads.popleft()
        with torch.no_grad(), transfers.current_device():
            frames, firsts = uploaded()
            if len(firsts):
                flow = solve(frames.float(), firsts, params)
            else:  # clips of one frame
                flow = torch.empty(0, 2, *frames.shape[1:], device=device)
            downloads.append((pieces, transfers.download(finish(flow))))

    def finished_clips() -> Iterator[list[np.ndarray]]:
        pieces, downloaded = downloads.popleft()
        arrays, start = downloaded(), 0
        for piece in pieces:
            end = start + len(piece.frames) - 1
            parts.append([array[start:end] for array in arrays])
            start = end
            if piece.last:
                yield [part[0] if len(part) == 1 else np.concatenate(part) for part in zip(*parts, strict=True)]
                parts.clear()

    for batch in _batches(clips, pixels_at_once(device)):
        uploads.append((batch, transfers.upload(batch)))
        if len(uploads) > 1:
            solve_next()
        if len(downloads) > 1:
            yield from finished_clips()
    while uploads or downloads:
        if uploads:
            solve_next()
        if downloads and (len(downloads) > 1 or not uploads):
            yield from finished_clips()


def _batches(clips: Iterable[np.ndarray], pixels: int) -> Iterator[list[_Piece]]:
    """Cut clips into pieces, and group them into batches of one size of frames and at most `pixels` pixels."""
    batch: list[_Piece] = []
    room = 0
    for clip in clips:
        size = clip.shape[1] * clip.shape[2]
        start, pairs, ended = 0, len(clip) - 1, False
        while not ended:
            if batch and (batch[0].frames.shape[1:] != clip.shape[1:] or room < size):
                yield batch
                batch = []
            if not batch:
                room = pixels
            count = min(max(room // size, 1), pairs - start)
            ended = start + count == pairs
            batch.append(_Piece(clip[start : start + count + 1], last=ended))
            room -= count * size
            start += count
    if batch:
        yield batch


class _Transfers:
    """Copies between host and device, on a GPU beside the computation."""

    def __init__(self, device: torch.device):
        self.device = device
        self._on_gpu = device.type == "cuda"
        self._up, self._down = (self._new_stream() for _ in range(2))

    def _new_stream(self) -> torch.cuda.Stream | None:
        return torch.cuda.Stream(self.device) if self._on_gpu else None  # type: ignore[no-untyped-call]

    def current_device(self) -> AbstractContextManager[object]:
        """Make the device the current one, on which Triton launches kernels."""
        return torch.cuda.device(self.device) if self._on_gpu else nullcontext()

    def upload(self, batch: list[_Piece]) -> Callable[[], tuple[Tensor, Tensor]]:
        """Begin to copy the frames of a batch. Returns a function that returns them, and each pair's first frame.

        The current stream waits for the copy, the host does not."""
        count = sum(len(piece.frames) for piece in batch)
        frames = torch.empty(count, *batch[0].frames.shape[1:], dtype=torch.uint8, pin_memory=self._on_gpu)
        np.concatenate([piece.frames for piece in batch], out=frames.numpy())
        starts = np.cumsum([0, *(len(piece.frames) for piece in batch[:-1])])
        firsts = np.concatenate(
            [np.arange(start, start + len(piece.frames) - 1) for start, piece in zip(starts, batch, strict=True)]
        )
        of_pairs = torch.empty(len(firsts), dtype=torch.int32, pin_memory=self._on_gpu)
        of_pairs.numpy()[:] = firsts
        if self._up is None:
            return lambda: (frames, of_pairs)
        with torch.cuda.stream(self._up):
            copies = tuple(tensor.to(self.device, non_blocking=True) for tensor in (frames, of_pairs))
            copied = self._up.record_event()

        def uploaded() -> Any:
            stream = torch.cuda.current_stream(self.device)
            stream.wait_event(copied)
            for tensor in copies:
                tensor.record_stream(stream)
            return copies

        return uploaded

    def download(self, results: tuple[Tensor, ...]) -> Callable[[], list[np.ndarray]]:
        """Begin to copy results of the current stream. Returns a function that waits for the copies and returns
        them."""
        if self._down is None:
            return lambda: [result.numpy() for result in results]
        self._down.wait_stream(torch.cuda.current_stream(self.device))
        copies = []
        with torch.cuda.stream(self._down):
            for result in results:
                copy = torch.empty(result.shape, dtype=result.dtype, pin_memory=True)
                copies.append(copy.copy_(result, non_blocking=True))
                result.record_stream(self._down)
            copied = self._down.record_event()

        def downloaded() -> list[np.ndarray]:
            copied.synchronize()
            return [copy.numpy() for copy in copies]

        return downloaded
