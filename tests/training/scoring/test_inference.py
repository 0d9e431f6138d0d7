import dataclasses
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from lgd.pipeline.console.errors import UsageError, UserError
from lgd.pipeline.dataset.dataset import Dataset
from lgd.pipeline.dataset.index import Index
from lgd.pipeline.loading import transform
from lgd.pipeline.loading.loader import uniform_loader
from lgd.pipeline.loading.reader import ClipReader
from lgd.training import checkpoint
from lgd.training.models.lgd import Network
from lgd.training.recipes import recipe_named
from lgd.training.run import Run, open_run
from lgd.training.scoring import inference
from lgd.training.scoring.inference import (
    VideoScores,
    check_dataset,
    load_checkpoint,
    load_network,
    score_rows,
    scoring_precision,
)
from lgd.training.scoring.protocol import TestProtocol
from lgd.training.steps.precision import autocast
from tests.training.scoring.random_run import CONFIG, CPU, random_network


def test_features_are_those_of_a_direct_forward_pass_and_networks_without_diffusion_have_no_global_features(
    dataset: Dataset,
):
    plain = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, variant="none"))
    for config in (CONFIG, plain):
        network = random_network(config, 0)

        def score(protocol: TestProtocol, network: Network = network) -> list[VideoScores]:
            videos = score_rows(
                network,
                CONFIG,
                dataset,
                split="val",
                protocol=protocol,
                device=CPU,
                batch_size=3,
                chunk=1,
                chunks=3,
            )
            return list(videos)

        videos = score(TestProtocol(2, keep=("clips", "features")))
        loader = uniform_loader(dataset, "rgb", 2, sampling=CONFIG.sampling, max_clips=2, rank=1, workers=3)
        for video, batch in zip(videos, loader, strict=True):
            with torch.inference_mode():
                output = network(batch.video)
            assert video.local_features is not None
            assert video.clip_probabilities is not None
            np.testing.assert_allclose(video.local_features, output.local.mean((2, 3, 4)), rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(video.clip_probabilities, network.probabilities(output), atol=1e-5)
            np.testing.assert_allclose(video.probabilities, network.probabilities(output).mean(0), atol=1e-5)
            assert (output.glob is None) == (config is plain)
            assert (video.global_features is None) == (config is plain)
            if output.glob is not None and video.global_features is not None:
                np.testing.assert_allclose(video.global_features, output.glob, rtol=1e-4, atol=1e-5)
    assert {video[2:] for video in score(TestProtocol(1))} == {(None, None, None)}


def test_a_line_says_how_many_videos_were_scored_by_their_middle_alone(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    network = random_network(CONFIG, 0)

    def score(crops: int) -> tuple[list[np.ndarray], str]:
        protocol = TestProtocol(clips=1, crops=crops)
        scores = score_rows(network, CONFIG, dataset, split="val", protocol=protocol, device=CPU)
        return [video.probabilities for video in scores], capsys.readouterr().err

    full, nothing = score(crops=1)
    monkeypatch.setattr(inference, "MAX_ASPECT", 1)
    monkeypatch.setattr(transform, "MAX_ASPECT", 1)
    middle, line = score(crops=1)
    assert nothing == ""
    assert line == (
        "videos of which only the middle was scored, because their frames are longer than 1:1: 6; --crops 3 "
        "scores both ends as well, in squares\n"
    )
    assert all(not np.array_equal(a, b) for a, b in zip(full, middle, strict=True))
    assert score(crops=3)[1] == ""


def test_lgd_2d_is_tested_on_triples(dataset: Dataset):
    recipe = recipe_named("kinetics400-rgb-r50-lgd2d")
    protocol = TestProtocol(recipe.test_clips, keep=("clips",))
    assert protocol.describe(recipe) == "10 uniform triples of whole frames"
    network, index = random_network(recipe, 0), Index(dataset, "rgb")
    (video,) = score_rows(network, recipe, dataset, split="val", protocol=protocol, device=CPU, chunk=1, chunks=6)
    assert video.row == index.rows("val")[1]
    assert video.clip_probabilities is not None
    assert video.clip_probabilities.shape == (10, 6)
    length = int(index.lengths[video.row])
    numbers = [int((segment + (7 + 0.5) / 10) * length / 3) for segment in range(3)]
    jpegs = ClipReader(index).read(video.row, np.array(numbers))
    frames = np.stack([np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR)) for jpeg in jpegs])[..., ::-1]
    clip = ((frames - np.array(recipe.transform.mean)) / np.array(recipe.transform.std)).transpose(3, 0, 1, 2)
    with torch.inference_mode():
        expected = network.probabilities(network(torch.tensor(clip[None], dtype=torch.float32)))[0]
    np.testing.assert_allclose(video.clip_probabilities[7], expected, atol=0.05)


def test_missing_and_damaged_checkpoints_are_named(
    run: Run, dataset: Dataset, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    copy = tmp_path / "run"
    shutil.copytree(run.storage.root, copy)
    opened = open_run(str(copy))
    best, last = (copy / checkpoint.checkpoint_name(step) for step in (1, 2))
    assert load_checkpoint(opened, "best")["step"] == 1
    assert load_checkpoint(opened)["step"] == 2
    complete = last.read_bytes()
    last.write_bytes(complete[: len(complete) // 2])
    assert load_checkpoint(opened)["step"] == 1
    assert f"{last} is damaged" in capfd.readouterr().err
    best.write_bytes(b"no checkpoint")
    for which in ("best", "last"):
        with pytest.raises(
            UserError, match=str(best) if which == "best" else "has no valid checkpoint: train it first"
        ):
            load_checkpoint(opened, which)
    best.unlink()
    with pytest.raises(UserError, match=f"{best}, the best checkpoint, is missing: use --checkpoint last"):
        load_checkpoint(opened, "best")
    (copy / "best.json").write_text("{")
    with pytest.raises(UserError, match=r"best\.json is damaged: .* use --checkpoint last"):
        load_checkpoint(opened, "best")
    (copy / "best.json").unlink()
    with pytest.raises(UserError, match="has no best checkpoint, because nothing was validated: use --checkpoint last"):
        load_checkpoint(opened, "best")
    with pytest.raises(UserError, match="x does not match the network that"):
        load_network(run, {"stem": torch.zeros(1)}, CPU, weights_name="x")
    with pytest.raises(UsageError, match="--checkpoint must be last or best"):
        load_checkpoint(opened, "first")  # type: ignore[arg-type]


def test_a_dataset_that_the_run_was_not_trained_for_is_refused(run: Run, dataset: Dataset):
    check_dataset(run, dataset)
    renamed = dataclasses.replace(dataset, classes=(*dataset.classes[:-1], "sleep"))
    with pytest.raises(UserError, match="have different classes: evaluate on a dataset with the classes"):
        check_dataset(run, renamed)
    spec = dataset.spec("rgb")
    changed = dataclasses.replace(spec, settings={**spec.settings, "short_side": 32})
    with pytest.raises(UserError, match=r"the rgb stream of .* was preprocessed with different settings"):
        check_dataset(dataclasses.replace(run, stream_spec=changed), dataset)


def test_scoring_uses_no_tf32_and_restores_the_setting(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    with scoring_precision("float32", CPU):
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.is_autocast_enabled("cpu")
    assert torch.backends.cudnn.allow_tf32
    with autocast("bfloat16", CPU):
        assert torch.get_autocast_dtype("cpu") == torch.bfloat16
        assert torch.is_autocast_enabled("cpu")
