"""`lgd predict` on real files, valid and broken."""

from pathlib import Path

import pytest
import torch

from lgd.pipeline.dataset.dataset import Dataset
from lgd.prediction.options import PredictOptions
from lgd.prediction.predict_files import predict_files
from lgd.training.checkpoint import CheckpointWriter
from lgd.training.models.zoo import build
from lgd.training.recipes import recipe_named
from lgd.training.run import begin_run


@pytest.fixture
def run(dataset: Dataset, tmp_path: Path) -> str:
    """A run with random weights."""
    config = recipe_named("nano-rgb")
    run = begin_run(str(tmp_path / "run"), "nano-rgb", config, dataset=dataset)
    network = build(config.model, len(dataset.classes), 3)
    writer = CheckpointWriter(run)
    writer.save(0, network, torch.optim.SGD(network.parameters()))
    writer.close()
    return str(tmp_path / "run")


def test_every_clip_has_a_prediction_and_every_broken_file_a_prediction_or_a_reason(data: Path, run: str):
    paths = sorted(path for folder in ("clips", "broken") for path in (data / folder).rglob("*") if path.is_file())
    result = predict_files([str(path) for path in paths], rgb=run, options=PredictOptions(clips=1))
    rows = {str(Path(row["path"]).relative_to(data)): row for row in result.document()["videos"]}
    assert list(rows) == [str(path.relative_to(data)) for path in paths]
    assert {name: row["rejected"] for name, row in rows.items() if "rejected" in row} == {
        "broken/bitflips300.avi": "decoder-error",
        "broken/empty.mp4": "unreadable",
        "broken/text_as_video.mp4": "unreadable",
        "broken/truncated50.avi": "truncated",
        "broken/truncated50.mp4": "truncated",
    }
    assert result.failed == f"5 of {len(paths)} videos were rejected"
    for row in rows.values():
        if "rejected" not in row:
            assert sum(each["probability"] for each in row["streams"]["rgb"]) <= 1 + 1e-5
            assert len(row["predictions"]) == 5
            assert row["seconds"] * 25 == pytest.approx(row["frames"])


def test_a_file_with_the_name_of_an_option_and_a_rotated_video_are_drawn(data: Path, run: str, tmp_path: Path):
    paths = [data / "clips/moviepy/-video-with-dash-.mp4", data / "clips/decord/video_90.mov"]
    result = predict_files(
        [str(path) for path in paths], rgb=run, options=PredictOptions(clips=1, render=str(tmp_path / "out"))
    )
    assert not result.failed
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["-video-with-dash-.mp4", "video_90.mp4"]
