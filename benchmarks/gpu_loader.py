"""The loader on a GPU: how its decoder differs from that of the CPU, frames per second, and the copy of a batch.

The training step needs its clips per second times their frames; the loader must reach twice that. The copy of a batch
into PyTorch's memory runs on the GPU between two steps, so it must be short."""

from lgd.benchmarks.gpu_card import seconds_each
from lgd.benchmarks.gpu_rows import Measured, Row

MAX_DIFFERENCE = 1.0  # of 255: mean
CLIPS, FRAMES, CROP = 64, 16, 112  # of a batch
MAX_COPY = 0.02  # of a step
PICTURES = 64  # that both decoders decode


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
    return [
        Row("decoding, GPU - CPU", float(gaps.mean()), "of 255", None, MAX_DIFFERENCE, lower_is_better=True, note=note)
    ]


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
