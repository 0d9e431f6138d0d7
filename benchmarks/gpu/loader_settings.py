"""The loader on a GPU: clips per second over threads, share of the hardware decoder, interpolation of colors and frame
sizes, and the share of a training step that the copy of a batch costs.

    python -m lgd.benchmarks.gpu.loader_settings            one JSON document; needs a GPU
"""

import itertools
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any
from unittest import mock

import numpy as np

from lgd.pipeline.console.errors import UserError

THREADS, LOADS, FANCY, FRAME_SIZES = (1, 4, 8), (0.65, 0.9, 1.0), (True, False), ((160, 120), (340, 256))
CLIPS, FRAMES, CROP = 64, 16, 112  # of a batch
WARM_UP, MEASURED = 6, 20  # batches
COPIES = 50
PICTURES = 512  # different frames
CARDS_WITH_DECODER = ("A100", "A30", "H100", "H20", "H800", "GH200", "B100", "B200", "B300")


@dataclass(frozen=True)
class Speed:
    """Speed of the graph of the loader with one setting. The JPEGs are in memory."""

    width: int
    height: int
    threads: int
    hw_decoder_load: float
    fancy_upsampling: bool
    clips_per_s: float


@dataclass(frozen=True)
class CopyCost:
    """Time of the copy of a batch of CLIPS clips of FRAMES frames into PyTorch's memory, on the GPU."""

    dtype: str
    copy_ms: float
    tb_per_s: float
    """Bytes read and written per second, in 10^12."""

    def share_of_step(self, clips_per_s: float) -> float:
        """Return the share of a training step at this speed that the copy costs: at most 0.02 is wanted."""
        return self.copy_ms / 1e3 / (CLIPS / clips_per_s)


def speeds() -> Iterator[Speed]:
    """Yield the speed of each setting. A GPU without a hardware decoder is measured with one share of it only."""
    loads = LOADS if has_hardware_decoder() else LOADS[:1]
    for (width, height), threads, load, fancy in itertools.product(FRAME_SIZES, THREADS, loads, FANCY):
        clips_per_s = measure(width, height, threads=threads, load=load, fancy=fancy)
        yield Speed(width, height, threads, load, fancy, clips_per_s)


def measure(width: int, height: int, *, threads: int, load: float, fancy: bool, device: int | None = 0) -> float:
    """Return clips per second of the loader's graph and hand-over, from JPEGs in memory. device: None for the CPU."""
    import torch

    from lgd.pipeline.dataset.dataset import STREAMS
    from lgd.pipeline.loading import dali
    from lgd.pipeline.loading.hand_over import create_hand_over
    from lgd.pipeline.loading.transform import Transform

    batches = itertools.cycle(_batches(width, height))
    options = dali.decoder_options(STREAMS["rgb"], device, threads=threads, load=load)
    if device is not None:
        options["jpeg_fancy_upsampling"] = fancy
    with mock.patch.object(dali, "decoder_options", return_value=options):
        pipeline = dali.build_pipeline(
            STREAMS["rgb"],
            Transform(crop=CROP),
            lambda: next(batches),
            max_frames=CLIPS * FRAMES,
            device_id=device,
            threads=threads,
        )
    hand_over = create_hand_over(torch.device("cpu") if device is None else torch.device("cuda", device))
    start = 0.0
    for number in range(WARM_UP + MEASURED):
        if number == WARM_UP:
            start = time.perf_counter()
        hand_over.tensor(pipeline.run()[0], torch.float32)
    hand_over.close()  # waits for the last copy
    return MEASURED * CLIPS / (time.perf_counter() - start)


def copy_costs() -> list[CopyCost]:
    """Return the cost of the copy by number type. DALI writes float32."""
    import torch

    shared = torch.zeros(CLIPS * FRAMES, CROP, CROP, 3, device="cuda")
    costs = []
    for dtype in (torch.float32, torch.bfloat16):
        shared.to(dtype, copy=True)
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        for _ in range(COPIES):
            shared.to(dtype, copy=True)
        end.record()
        end.synchronize()
        milliseconds = start.elapsed_time(end) / COPIES
        moved = shared.numel() * (shared.element_size() + dtype.itemsize)
        costs.append(CopyCost(str(dtype).removeprefix("torch."), milliseconds, moved / milliseconds / 1e9))
    return costs


def has_hardware_decoder() -> bool:
    """Return whether the GPU has a decoder for JPEGs: those of data centers from A100 on have one."""
    import torch

    name = torch.cuda.get_device_name()
    return any(
        card in name for card in ("A100", "A30", "H100", "H200", "H800", "H20", "GH200", "B100", "B200", "GB200")
    )


def _batches(width: int, height: int) -> list[Any]:
    """Return the inputs of the graph for two batches of smooth random pictures with noise."""
    import cv2

    from lgd.pipeline.loading.frame_inputs import MAX_WIDTHS, FrameInputs, pad

    random = np.random.default_rng(0)
    pictures = []
    for _ in range(PICTURES):
        smooth = cv2.resize(
            random.integers(0, 256, (9, 12, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC
        )
        noisy = np.clip(smooth + random.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)
        pictures.append(np.asarray(cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, 90])[1]).reshape(-1))
    count = CLIPS * FRAMES
    whole_rows = width <= MAX_WIDTHS * CROP
    batches = []
    for _ in range(2):
        left = random.integers(0, width - CROP + 1, count)
        top = random.integers(0, height - CROP + 1, count)
        anchor = np.stack([top, 0 * left if whole_rows else left], axis=1).astype(np.int32)
        shape = np.full((count, 2), (CROP, width if whole_rows else CROP), np.int32)
        window_x = (left / (width - CROP) if whole_rows else 0 * left).astype(np.float32)
        batches.append(
            FrameInputs(
                pad([pictures[i] for i in random.integers(0, PICTURES, count)]),
                anchor,
                shape,
                random.integers(0, 2, count).astype(np.int32),
                window_x,
                np.full(count, CROP, np.float32),
                np.zeros((count, 0), np.float32),
                np.ones((count, 3), np.float32),
            )
        )
    return batches


def main() -> None:
    """Measure everything and print one JSON document."""
    import torch

    if not torch.cuda.is_available():
        raise UserError("this benchmark needs an NVIDIA GPU that this PyTorch can use")
    measured = []
    for speed in speeds():
        print(f"{speed}", file=sys.stderr)
        measured.append(asdict(speed))
    document = {"card": torch.cuda.get_device_name(), "copies": list(map(asdict, copy_costs())), "speeds": measured}
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
