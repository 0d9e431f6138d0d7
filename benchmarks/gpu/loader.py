"""What a GPU does for the loader: how its JPEG decoder differs from that of the CPU, frames per second, and the copy of
a batch.

The training step needs its clips per second times their frames; the decoder must reach twice that. The copy of a batch
into PyTorch's memory runs on the GPU between two steps, so it must be short."""

import time

from lgd.benchmarks.gpu.card import seconds_each
from lgd.benchmarks.gpu.rows import Measured, Row

MAX_DIFFERENCE = 1.0  # of 255: mean
CLIPS, FRAMES, CROP = 64, 16, 112  # of a batch
MAX_COPY = 0.02  # of a step
PICTURES = 64  # that both decoders decode
THREADS = (1, 4, 8)
MARGIN = 2.0  # of the decoder over the training step
LEAST_S = 3.0  # of a measurement of the decoder


def decoding(measured: Measured) -> list[Row]:
    """Compare JPEGs decoded by the GPU (`mixed`) with those decoded by the CPU, by the same DALI graph."""
    import numpy as np

    from lgd.clusters.doctor.decoding import build, jpegs

    pictures = jpegs(PICTURES)
    (on_gpu,) = build(pictures, 4, gpu=True, batch=PICTURES).run()
    (on_cpu,) = build(pictures, 1, gpu=False, batch=PICTURES).run()
    found, expected = (
        np.stack([np.asarray(each) for each in output]).astype(np.int16) for output in (on_gpu.as_cpu(), on_cpu)
    )
    gaps = np.abs(found - expected)
    note = f"at most {gaps.max()}"
    rows = [
        Row("decoding, GPU - CPU", float(gaps.mean()), "of 255", None, MAX_DIFFERENCE, lower_is_better=True, note=note)
    ]
    for threads in THREADS:
        pipeline = build(pictures, threads, gpu=True, batch=CLIPS * FRAMES)
        for _ in range(2):
            pipeline.run()
        batches, start = 0, time.perf_counter()
        while time.perf_counter() - start < LEAST_S:
            pipeline.run()
            batches += 1
        frames_per_s = batches * CLIPS * FRAMES / (time.perf_counter() - start)
        goal = MARGIN * FRAMES * measured.clips_per_s if measured.clips_per_s and threads == THREADS[-1] else None
        rows.append(Row(f"decoding, {threads} threads", frames_per_s, "frames/s", None, goal))
    return rows


def loading(measured: Measured) -> list[Row]:
    """Measure the loader's graph and its hand-over with its default settings and 8 threads, from JPEGs in memory."""
    from lgd.benchmarks.gpu import loader_settings
    from lgd.pipeline.loading.dali import HW_DECODER_LOAD

    goal = MARGIN * measured.clips_per_s if measured.clips_per_s else None
    rows = []
    for width, height in loader_settings.FRAME_SIZES:
        clips_per_s = loader_settings.measure(width, height, threads=THREADS[-1], load=HW_DECODER_LOAD, fancy=True)
        rows.append(Row(f"loader, {width} x {height}", clips_per_s, "clips/s", None, goal))
    return rows


def copy(measured: Measured) -> list[Row]:
    """Measure the copy of a batch from DALI's type, float32, to the step's, bfloat16."""
    import torch

    frames = torch.randn(CLIPS * FRAMES, CROP, CROP, 3, device="cuda")
    target = torch.empty_like(frames, dtype=torch.bfloat16)
    seconds = seconds_each(lambda: target.copy_(frames), 50, warm_up=5)
    rows = [Row("copy of a batch", seconds * 1e3, "ms", _copy_ms(measured, frames.nbytes), lower_is_better=True)]
    if measured.clips_per_s:
        share = seconds / (CLIPS / measured.clips_per_s)
        rows.append(Row("copy of a batch, of a step", share, "of a step", None, MAX_COPY, lower_is_better=True))
    return rows


def _copy_ms(measured: Measured, read: int) -> float | None:
    """Return the time of reading the batch and writing half as many bytes, milliseconds."""
    return 1e3 * 1.5 * read / measured.bytes_per_s if measured.bytes_per_s else None
