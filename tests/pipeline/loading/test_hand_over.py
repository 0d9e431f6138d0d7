"""Batches from DALI to PyTorch: without CUDA, on a stream whose work is done only when the test says so."""

import gc
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from nvidia.dali import fn
from nvidia.dali.pipeline import Pipeline
from torch.utils._python_dispatch import TorchDispatchMode

from lgd.pipeline.loading.hand_over import CopyingHandOver, SharingHandOver, create_hand_over


class Stream:
    """Records events in `log`. Its work up to event i is done when `done` is more than i."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.events, self.done = 0, 0

    def record(self) -> "Event":
        self.log.append("record")
        self.events += 1
        return Event(self, self.events - 1)


class Event:
    def __init__(self, stream: Stream, number: int) -> None:
        self.stream, self.number = stream, number

    def query(self) -> bool:
        return self.stream.done > self.number

    def synchronize(self) -> None:
        self.stream.log.append(f"wait {self.number}")
        self.stream.done = max(self.stream.done, self.number + 1)


class Frames:
    """An output of DALI."""

    def __init__(self, value: float) -> None:
        self.memory = torch.full((6, 4, 5, 3), value)

    def as_tensor(self) -> torch.Tensor:
        return self.memory


class CopyLog(TorchDispatchMode):
    """Adds "copy" to the log for each copy of a tensor."""

    def __init__(self, log: list[str]) -> None:
        super().__init__()
        self.log = log

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "copy" in func.name() or "clone" in func.name():
            self.log.append("copy")
        return func(*args, **(kwargs or {}))


def hand_over(stream: Stream, count: int, kept_batches: int = 3) -> tuple[CopyingHandOver, list[weakref.ref]]:
    """Hand over batches; return the hand-over, and references to DALI's outputs."""
    handed = CopyingHandOver(stream.record, kept_batches)
    outputs = []
    for number in range(count):
        frames = Frames(number)
        outputs.append(weakref.ref(frames))
        handed.tensor(frames, torch.float32)
    del frames
    return handed, outputs


def alive(outputs: list[weakref.ref]) -> list[int]:
    gc.collect()
    return [number for number, output in enumerate(outputs) if output() is not None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_batch_is_copied_once_in_the_wanted_type_before_the_event(dtype: torch.dtype):
    stream, frames = Stream(), Frames(3)
    with CopyLog(stream.log):
        copy = CopyingHandOver(stream.record).tensor(frames, dtype)
    assert stream.log == ["copy", "record"]
    assert (copy.dtype, copy.stride()) == (dtype, frames.memory.stride())
    frames.memory.fill_(7)  # DALI uses its memory for another batch
    assert (copy == 3).all()


def test_memory_is_kept_until_the_event_is_done_without_waiting():
    stream = Stream()
    handed, outputs = hand_over(stream, 3)
    assert alive(outputs) == [0, 1, 2]
    stream.done = 2
    assert alive(outputs) == [0, 1, 2]  # looked at with the next batch
    handed.tensor(Frames(9), torch.float32)
    assert alive(outputs) == [2]
    assert stream.log == ["record"] * 4


def test_at_most_this_many_batches_are_kept_and_the_oldest_is_waited_for():
    stream = Stream()
    _handed, outputs = hand_over(stream, 4, kept_batches=2)
    assert alive(outputs) == [2, 3]
    assert stream.log == ["record", "record", "record", "wait 0", "record", "wait 1"]


def test_closing_waits_for_the_copies_and_frees_the_memory():
    stream = Stream()
    handed, outputs = hand_over(stream, 3)
    handed.close()
    assert alive(outputs) == []
    assert stream.log == ["record"] * 3 + ["wait 0", "wait 1", "wait 2"]


def test_the_device_decides_whether_batches_are_copied():
    assert isinstance(create_hand_over(torch.device("cpu")), SharingHandOver)
    assert isinstance(create_hand_over(torch.device("cuda", 0)), CopyingHandOver)


@pytest.mark.parametrize("prefetch", [1, 3])
def test_on_the_cpu_dali_never_writes_to_memory_of_a_tensor_in_use(prefetch: int):
    """Also after the pipeline is gone. With another executor of DALI, and without a copy, the values change."""
    numbers = iter(range(100))

    def source() -> np.ndarray:
        return np.full((8, 64, 64, 3), next(numbers), np.float32)

    pipeline = Pipeline(batch_size=8, num_threads=1, device_id=None, prefetch_queue_depth=prefetch, exec_dynamic=True)
    with pipeline:
        frames = fn.external_source(source=source, batch=True, layout="HWC")
        pipeline.set_outputs(frames + np.float32(0))
    pipeline.build()
    handed = SharingHandOver()
    tensors = [handed.tensor(pipeline.run()[0], torch.float32) for _ in range(20)]
    del pipeline
    gc.collect()
    assert [tensor.unique().tolist() for tensor in tensors] == [[number] for number in range(20)]
    assert len({tensor.data_ptr() for tensor in tensors}) == 20
