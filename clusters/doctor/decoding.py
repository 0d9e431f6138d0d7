"""Decoding of JPEGs by DALI: equal to OpenCV's decoder, and frames per second. The pictures are made here."""

import os
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from lgd.clusters.doctor import advice
from lgd.clusters.doctor.gpu import nvjpeg
from lgd.clusters.doctor.rows import GPU, NODE, OK, WARNING, Row, attempt, speed

HEIGHT, WIDTH, WINDOW = 256, 340, 224  # pixels of a frame, and of the side of the window that is decoded
DIFFERENT, BATCH, BATCHES = 32, 128, 8  # different pictures; frames in a batch; batches, 1,024 frames
THREADS = (1, 4, 8)
MAX_MEAN_DIFFERENCE = 0.5  # of 255: of the rounding of two decoders
LEAST_CPU, LEAST_GPU = 1500.0, 10000.0  # frames per second: of one thread of the CPU, and of a GPU with all threads
LIMIT_S = 4.0  # of one measurement


def decoding_rows(gpus: bool) -> Iterator[Row]:
    """Yield the rows of the decoders of the CPU, or of the first GPU."""
    section, name = (GPU, "JPEGs") if gpus else (NODE, "JPEGs, CPU")
    if gpus:
        import torch

        if not torch.cuda.is_available():  # another row says so
            return
        yield from attempt(GPU, "nvJPEG", nvjpeg)
    pictures = jpegs(DIFFERENT)
    yield from attempt(section, name, lambda: difference(section, name, pictures, gpu=gpus), advice=advice.DALI)
    cpus = len(os.sched_getaffinity(0))
    for threads in dict.fromkeys(min(threads, cpus) for threads in THREADS):
        yield from attempt(section, rate_name(name, threads), partial(rate, pictures, threads, gpu=gpus))


def rate_name(name: str, threads: int) -> str:
    """Return the name of the row of a number of threads."""
    return f"{name}, {threads} thread{'s' if threads > 1 else ''}"


def jpegs(count: int) -> list[Any]:
    """Return different pictures of smooth surfaces and edges, with colors at half the resolution, as in datasets."""
    import cv2
    import numpy as np

    random = np.random.default_rng(0)
    found = []
    for _ in range(count):
        coarse = random.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        picture = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        for _ in range(12):
            x, y = int(random.integers(WIDTH)), int(random.integers(HEIGHT))
            color = tuple(map(int, random.integers(0, 256, 3)))
            cv2.circle(picture, (x, y), int(random.integers(5, 40)), color, thickness=-1)
        found.append(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].reshape(-1))
    return found


def build(pictures: list[Any], threads: int, *, gpu: bool, batch: int) -> Any:
    """Return a DALI pipeline that decodes the pictures again and again, as the loader does: a window of each."""
    from nvidia.dali import fn
    from nvidia.dali.pipeline import Pipeline

    numbers = iter(range(1 << 60))
    pipeline = Pipeline(batch_size=batch, num_threads=threads, device_id=0 if gpu else None, prefetch_queue_depth=2)
    with pipeline:
        encoded = fn.external_source(
            source=lambda: [pictures[next(numbers) % len(pictures)] for _ in range(batch)], batch=True
        )
        top, left = (HEIGHT - WINDOW) // 2, (WIDTH - WINDOW) // 2
        decoded = fn.decoders.image_slice(
            encoded,
            [top, left],
            [WINDOW, WINDOW],
            axis_names="HW",
            device="mixed" if gpu else "cpu",
            jpeg_fancy_upsampling=True,
        )
        pipeline.set_outputs(decoded)
    pipeline.build()
    return pipeline


def difference(section: str, name: str, pictures: list[Any], *, gpu: bool) -> Row:
    """Compare the decoded windows with those of OpenCV's decoder on the CPU."""
    import cv2
    import numpy as np

    (output,) = build(pictures, 1, gpu=gpu, batch=len(pictures)).run()
    top, left = (HEIGHT - WINDOW) // 2, (WIDTH - WINDOW) // 2
    found = np.stack([np.asarray(each) for each in (output.as_cpu() if gpu else output)]).astype(np.int16)
    whole = [np.asarray(cv2.imdecode(each, cv2.IMREAD_COLOR))[..., ::-1] for each in pictures]  # it returns BGR
    expected = np.stack([each[top : top + WINDOW, left : left + WINDOW] for each in whole]).astype(np.int16)
    gaps = np.abs(found - expected)
    figure = "equal to OpenCV's decoder"
    if gaps.any():
        figure = f"differs from OpenCV's decoder by {gaps.mean():.2f} of 255 on average, at most {gaps.max()}"
    other = gaps.mean() > MAX_MEAN_DIFFERENCE
    return Row(section, name, figure, WARNING if other else OK, advice.DECODERS if other else "")


def rate(pictures: list[Any], threads: int, *, gpu: bool) -> Row:
    """Frames per second with a number of threads."""
    pipeline = build(pictures, threads, gpu=gpu, batch=BATCH)
    pipeline.run()
    start, batches = time.perf_counter(), 0
    while batches < BATCHES and time.perf_counter() - start < LIMIT_S:
        pipeline.run()
        batches += 1
    value = batches * BATCH / (time.perf_counter() - start)
    section, name = (GPU, "JPEGs") if gpu else (NODE, "JPEGs, CPU")
    least = (LEAST_GPU if threads == max(THREADS) else 0.0) if gpu else LEAST_CPU if threads == 1 else 0.0
    return speed(section, rate_name(name, threads), value, unit="frames/s", least=least, advice=advice.FRAMES)
