"""What lgd 0.1 wrote can be opened, verified, evaluated, resumed, fused and used for predictions."""

import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from lgd.clusters.testbed.processes import run_lgd
from lgd.pipeline.dataset.dataset import open_dataset
from lgd.training import checkpoint
from lgd.training.config_file import to_flat_dict
from lgd.training.run import open_run
from lgd.training.scoring.scores import read_scores
from lgd.training.steps.step import create_network
from tests.training.runs import losses, metrics

ARCHIVE = Path(__file__).parent / "v0.1" / "files.tar.xz"
OPTIONS = (
    *("--model.rank-divisor", 64, "--stride", 1, "--transform.crop", 32, "--batch-size", 3, "--epochs", 2),
    *("--validation.every", 1, "--checkpoint.every-s", 0, "--checkpoint.keep", 9),
)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """The files that lgd 0.1 wrote: dataset/, run/, three score files, metrics of the resumed run, a video."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def probabilities(path: Path) -> dict[str, list[float]]:
    table = pq.read_table(path)
    return dict(zip(*(table.column(name).to_pylist() for name in ("key", "probabilities")), strict=True))


def assert_same_scores(ours: Path, theirs: Path) -> None:
    assert probabilities(ours).keys() == probabilities(theirs).keys()
    for key, expected in probabilities(theirs).items():
        assert probabilities(ours)[key] == pytest.approx(expected, abs=1e-6), key


def test_the_dataset_opens_and_every_byte_of_it_is_verified(files: Path):
    dataset = open_dataset(files / "dataset")
    assert dataset.classes == ("spin", "up")
    assert list(dataset.streams) == ["rgb", "flow"]
    done = run_lgd("inspect", files / "dataset", "--verify", "--json")
    assert done.returncode == 0, done.stderr
    description = json.loads(done.stdout)
    assert description["problems"] == []
    assert (description["videos"], description["splits"]) == (8, {"train": 6, "val": 2})


def test_the_run_opens_with_the_configuration_that_its_options_gave_it(files: Path):
    run = open_run(str(files / "run"))
    written = json.loads((files / "run" / "config.json").read_text())
    assert written["version"] == 2
    assert "lgd" not in written
    config = to_flat_dict(run.config)
    assert (config["optimizer.lr"], config["batch_size"], config["micro_batch_size"]) == (0.02, 3, None)
    assert (config["optimizer.max_grad_norm"], config["freeze_normalization"]) == (None, False)
    assert config["transform.color_jitter"] == 0.4
    # Fields with the same names in lgd 0.1.
    unchanged = written["config"].keys() & config.keys()
    assert len(unchanged) >= 30
    for name in unchanged:
        assert json.loads(json.dumps(config[name])) == written["config"][name], name
    assert run.stream_spec == open_dataset(files / "dataset").spec("rgb")
    assert run.result() is None


def test_the_checkpoint_loads_into_the_network(files: Path):
    run = open_run(str(files / "run"))
    assert checkpoint.best(run) == {"checkpoint": "checkpoints/step-00000002.pt", "val_top1": 1.0}
    content = checkpoint.load_latest(run)
    assert content is not None
    assert (content["step"], content["position"]) == (2, 6)
    network, optimizer = create_network(run.config, len(run.classes), torch.device("cpu"))
    network.load_state_dict(content["model"])
    optimizer.load_state_dict(content["optimizer"])
    assert torch.equal(network.state_dict()["local_head.weight"], content["model"]["local_head.weight"])


def test_score_files_are_read(files: Path):
    scores, fused = read_scores(str(files / "rgb.parquet")), read_scores(str(files / "fused.parquet"))
    assert scores.classes == fused.classes == ("spin", "up")
    assert scores.keys == fused.keys
    assert scores.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert scores.probabilities.sum(1) == pytest.approx(np.ones(6), abs=1e-6)


def test_score_files_are_fused_to_the_same_scores(files: Path):
    inputs = (files / "rgb.parquet", files / "rgb-9-views.parquet")
    done = run_lgd("fuse", *inputs, "--weights", 1, 3, "--out", files / "again.parquet")
    assert done.returncode == 0, done.stderr
    assert_same_scores(files / "again.parquet", files / "fused.parquet")


@pytest.mark.usefixtures("joined")
@pytest.mark.parametrize(
    ("theirs", "protocol"), [("rgb.parquet", ("--clips", 1)), ("rgb-9-views.parquet", ("--clips", 3, "--crops", 3))]
)
def test_the_run_has_the_same_scores_on_the_dataset(files: Path, theirs: str, protocol: tuple[object, ...]):
    words = ("--data", files / "dataset", "--split", "train", *protocol, "--out", files / "ours.parquet")
    done = run_lgd("evaluate", files / "run", *words)
    assert done.returncode == 0, done.stderr
    assert_same_scores(files / "ours.parquet", files / theirs)


@pytest.mark.usefixtures("joined")
def test_the_run_resumes_with_the_same_losses(files: Path):
    words = ("train", "nano-rgb", "--data", files / "dataset", "--run", files / "run", *OPTIONS, "--num-workers", 1)
    done = run_lgd(*words)
    assert done.returncode == 0, done.stderr
    assert "resuming from the checkpoint of step 2" in done.stderr
    (files / "theirs").mkdir()
    (files / "resumed-metrics.jsonl").rename(files / "theirs" / "metrics.jsonl")
    assert len(losses(files / "theirs")) == 4
    assert losses(files / "run") == pytest.approx(losses(files / "theirs"), abs=1e-4)
    assert metrics(files / "run")[-1]["step"] == 4


def test_the_run_predicts_a_video(files: Path):
    done = run_lgd("predict", files / "video.mp4", "--rgb", files / "run", "--json")
    assert done.returncode == 0, done.stderr
    (video,) = json.loads(done.stdout)["videos"]
    assert sum(row["probability"] for row in video["predictions"]) == pytest.approx(1, abs=1e-5)
    assert {row["class"] for row in video["predictions"]} == {"spin", "up"}
    assert video["frames"] == 20
