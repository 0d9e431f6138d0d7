"""`lgd train` on GPUs: killed and resumed, compiled, and without enough GPU memory."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from lgd.clusters.testbed.processes import run_lgd, run_lgd_until
from lgd.training.run import open_run
from tests.training.runs import STEPS, losses, metrics, positions, train_command, without_repeats

pytestmark = pytest.mark.cluster

# A low learning rate: with that of the recipe, rounding errors of sums in a different order grow tenfold in 30 steps.
EXACT = ("--normalization-group", 4, "--optimizer.lr", 1e-6)
TOLERANCE = 1e-3  # of a loss of about 2


@pytest.fixture(scope="module")
def undisturbed(dataset_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """The losses of an undisturbed training on one GPU, without torch.compile."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    done = run_lgd(*train_command(dataset_folder, run, *EXACT, "--num-workers", 1, "--compile", "false"))
    assert done.returncode == 0, done.stderr
    assert torch.cuda.get_device_name() in done.stderr
    return losses(run)


def _has_checkpoint(run: Path) -> bool:
    return any((run / "checkpoints").glob("step-*.pt"))


@pytest.fixture(scope="module")
def workers() -> range:
    """The numbers of workers to test: 1, and 2 if there are two GPUs."""
    return range(1, min(torch.cuda.device_count(), 2) + 1)


def test_a_killed_run_resumes_and_has_the_losses_of_an_undisturbed_one(
    dataset_folder: Path, tmp_path: Path, undisturbed: list[float], workers: range
):
    for number in workers:
        run = tmp_path / str(number)
        words = train_command(dataset_folder, run, *EXACT, "--num-workers", number, "--compile", "false")
        run_lgd_until(partial(_has_checkpoint, run), *words)
        assert open_run(str(run)).result() is None
        done = run_lgd(*words)
        assert done.returncode == 0, done.stderr
        lines = metrics(run)
        assert sum("resumed" in line for line in lines) == 1
        assert {line["workers"] for line in lines if "loss" in line} == {number}
        assert positions(without_repeats(lines)) == list(range(4 * STEPS))
        assert losses(run) == pytest.approx(undisturbed, abs=TOLERANCE)


def test_a_compiled_network_has_the_losses_of_one_that_is_not_compiled(
    dataset_folder: Path, tmp_path: Path, undisturbed: list[float], workers: range
):
    for number in workers:
        run = tmp_path / str(number)
        words = train_command(dataset_folder, run, *EXACT, "--num-workers", number, "--compile", "true")
        done = run_lgd(*words, timeout_s=600)
        assert done.returncode == 0, done.stderr
        assert losses(run) == pytest.approx(undisturbed, abs=TOLERANCE)


def test_the_checkpoint_of_a_gpu_continues_on_the_cpu(
    dataset_folder: Path, tmp_path: Path, undisturbed: list[float], monkeypatch: pytest.MonkeyPatch
):
    run = tmp_path / "run"
    words = train_command(dataset_folder, run, *EXACT, "--num-workers", 1)
    run_lgd_until(partial(_has_checkpoint, run), *words)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    done = run_lgd(*words)
    assert done.returncode == 0, done.stderr
    assert losses(run) == pytest.approx(undisturbed, abs=TOLERANCE)


@pytest.fixture
def full_gpu() -> Iterator[None]:
    """A GPU with 4 GiB of free memory."""
    free, _ = torch.cuda.mem_get_info()
    occupied = torch.empty(max(free - (4 << 30), 0), dtype=torch.uint8, device="cuda")
    yield
    del occupied
    torch.cuda.empty_cache()


@pytest.mark.usefixtures("full_gpu")
def test_a_step_that_does_not_fit_into_the_memory_ends_with_one_line(dataset_folder: Path, tmp_path: Path):
    # About 50 MB per clip, 25 GB.
    large = ("--transform.crop", 48, "--batch-size", 512, "--model.checkpoint-activations", "false")
    words = ("--data", dataset_folder, "--run", tmp_path / "run", "--num-workers", 1, *large, "--compile", "false")
    done = run_lgd("train", "kinetics400-rgb-r50", *words)
    assert done.returncode == 1
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("lgd: "))
    assert line.startswith("lgd: the GPU memory of ")
    assert "is too small for the 512 clips that a worker computes at a time: rerun with --micro-batch-size 256" in line
    assert "Traceback" not in done.stderr
