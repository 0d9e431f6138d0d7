"""`lgd evaluate` and `lgd predict`: the probabilities on a GPU are those on the CPU."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lgd.clusters.testbed.processes import run_lgd
from lgd.pipeline.dataset.dataset import Dataset
from lgd.training.scoring.scores import read_scores
from tests.prediction.random_runs import make_run

TOLERANCE = 1e-3  # of a probability; both compute in float32


@pytest.fixture(scope="module")
def runs(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """One run per stream, by stream, with random weights."""
    folder = tmp_path_factory.mktemp("runs")
    return {stream: make_run(folder / stream, stream, dataset) for stream in ("rgb", "flow")}


@pytest.mark.cluster
def test_scores_of_a_gpu_are_those_of_the_cpu(
    runs: dict[str, str], dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for stream, run in runs.items():
        found = {}
        for device, visible in (("cuda", None), ("cpu", "")):
            with monkeypatch.context() as patch:
                if visible is not None:
                    patch.setenv("CUDA_VISIBLE_DEVICES", visible)
                out = tmp_path / f"{stream}-{device}.parquet"
                words = ("--data", dataset.storage.root, "--split", "train", "--clips", 3, "--out", out)
                done = run_lgd("evaluate", run, *words)
            assert done.returncode == 0, done.stderr
            assert ("GPU" in done.stderr) == (device == "cuda")
            found[device] = read_scores(str(out))
        assert found["cuda"].keys == found["cpu"].keys
        np.testing.assert_allclose(found["cuda"].probabilities, found["cpu"].probabilities, atol=TOLERANCE)
        assert np.ptp(found["cpu"].probabilities, axis=0).max() > 10 * TOLERANCE  # the videos differ


def test_predictions_of_a_gpu_are_those_of_the_cpu(runs: dict[str, str], videos: Path, monkeypatch: pytest.MonkeyPatch):
    paths = sorted(videos.rglob("*.mp4"))[:4]
    words = ("predict", *paths, "--rgb", runs["rgb"], "--flow", runs["flow"], "--clips", 3, "--top", 99, "--json")
    on_gpu = run_lgd(*words)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    on_cpu = run_lgd(*words)
    for done, device in ((on_gpu, torch.cuda.get_device_name()), (on_cpu, "the CPU")):
        assert done.returncode == 0, done.stderr
        assert f"on {device}" in done.stderr
    for found, expected in zip(*(json.loads(done.stdout)["videos"] for done in (on_gpu, on_cpu)), strict=True):
        by_class = {each["class"]: each["probability"] for each in found["predictions"]}
        assert by_class == pytest.approx(
            {each["class"]: each["probability"] for each in expected["predictions"]}, abs=TOLERANCE
        )
