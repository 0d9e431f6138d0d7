"""The loader on a GPU: batches that later ones do not overwrite, and the same clips as on the CPU."""

from dataclasses import replace

import pytest
import torch

from lgd.pipeline.dataset.dataset import Dataset
from lgd.pipeline.loading.loader import Batch, LoaderOptions, train_loader
from lgd.pipeline.loading.transform import Transform

TRANSFORM = Transform(crop=48)
SLEEP_CYCLES = 10**8  # about 50 ms


def loader_of(dataset: Dataset, stream: str, transform: Transform, *, steps: int, options: LoaderOptions):
    return train_loader(dataset, stream, 4, steps=range(steps), transform=transform, options=options)


def test_kernels_queued_late_read_the_pixels_of_their_own_batch(dataset: Dataset, gpu: torch.device):
    """The stream sleeps before it reads a batch that the host has dropped, as a training step whose last kernel still
    reads it. With a hand-over that shares DALI's memory, DALI writes the next batch there meanwhile, and the sums are
    those of other batches."""
    expected = [
        batch.video.double().sum().item()
        for batch in loader_of(dataset, "rgb", TRANSFORM, steps=24, options=LoaderOptions())
    ]
    sums = []
    for batch in loader_of(dataset, "rgb", TRANSFORM, steps=24, options=LoaderOptions(gpu)):
        torch.cuda._sleep(SLEEP_CYCLES)
        sums.append(batch.video.double().sum())
        del batch
    found = torch.stack(sums).cpu()
    # Decoders round differently: less than 1 of 255 per pixel on average, and different batches differ by far more.
    pixels = 4 * 3 * 16 * 48 * 48
    assert (found - torch.tensor(expected, dtype=torch.float64)).abs().max() / pixels < 1 / min(TRANSFORM.std)
    assert len({round(value, 3) for value in found.tolist()}) == 24


@pytest.mark.parametrize("stream", ["rgb", "flow"])
@pytest.mark.parametrize(
    "transform",
    [TRANSFORM, Transform(crop=33), replace(TRANSFORM, color_jitter=0.4), replace(TRANSFORM, resized_crop=0.3)],
    ids=["crop", "small crop", "jitter", "resize"],
)
def test_the_gpu_loads_the_same_clips_as_the_cpu(
    dataset: Dataset, gpu: torch.device, stream: str, transform: Transform
):
    scale = min(transform.std) if stream == "rgb" else transform.flow_std
    for cpu, cuda in zip(
        loader_of(dataset, stream, transform, steps=6, options=LoaderOptions()),
        loader_of(dataset, stream, transform, steps=6, options=LoaderOptions(gpu)),
        strict=True,
    ):
        assert (cuda.key, cuda.position, cuda.label.tolist()) == (cpu.key, cpu.position, cpu.label.tolist())
        assert (cuda.video.device.type, cuda.video.dtype) == ("cuda", torch.float32)
        assert cuda.video.stride() == cpu.video.stride()
        assert (cuda.video.cpu() - cpu.video).abs().mean() * scale < 1  # of 255


@pytest.mark.parametrize(("dtype", "step"), [(torch.float16, 2.0**-11), (torch.bfloat16, 2.0**-8)])
def test_the_copy_converts_the_number_type(dataset: Dataset, gpu: torch.device, dtype: torch.dtype, step: float):
    def batches(wanted: torch.dtype) -> list[Batch]:
        options = LoaderOptions(gpu, dtype=wanted, hw_decoder_load=0.0)  # which decoder a frame gets may vary
        return list(loader_of(dataset, "rgb", TRANSFORM, steps=3, options=options))

    for full, half in zip(batches(torch.float32), batches(dtype), strict=True):
        assert half.video.dtype == dtype
        assert half.video.is_contiguous(memory_format=torch.channels_last_3d)
        assert ((half.video.float() - full.video).abs() <= step * full.video.abs() + 1e-6).all()
