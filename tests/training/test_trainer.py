"""Training with the public trainer of Ray, as with a Ray that lacks private parts."""

import sys
import time
from pathlib import Path

import pytest

from lgd.clusters.testbed.processes import ProcessTree, run_lgd
from tests.clusters.test_embedded import beyond_loopback
from tests.support.sockets import listening
from tests.training.runs import losses, metrics, train_command

WITHOUT_PRIVATE_PARTS = """
import sys
from lgd import cli
from lgd.training import private_parts
private_parts.PRIVATE_PARTS = (("ray.train", "no_such_part"),)
sys.modules["lgd.training.fast_trainer"] = None  # importing it is an error
cli.main()
"""


@pytest.mark.cluster
def test_training_without_the_private_parts_gives_the_same_losses_and_listens_only_on_loopback(
    dataset_folder: Path, tmp_path: Path, request: pytest.FixtureRequest
):
    short = ("--epochs", 2, "--validation.every", 0, "--freeze-normalization", "--num-workers", 2)
    words = [str(word) for word in train_command(dataset_folder, tmp_path / "public", *short)]
    command = ProcessTree(sys.executable, "-c", WITHOUT_PRIVATE_PARTS, *words, log=tmp_path / "log")
    sockets: set[str] = set()
    try:
        deadline = time.monotonic() + 300
        while command.process.poll() is None:
            assert time.monotonic() < deadline
            sockets |= listening(command.pids())
            time.sleep(0.5)
    finally:
        command.kill()
    log = (tmp_path / "log").read_text()
    assert command.process.returncode == 0, log
    assert "has no ray.train.no_such_part: training uses Ray's TorchTrainer" in log.replace("\n", " ")
    assert len(sockets) > 5
    assert beyond_loopback(sockets) == []
    assert {line["workers"] for line in metrics(tmp_path / "public") if "loss" in line} == {2}

    request.getfixturevalue("joined")  # the other run has shown an embedded cluster
    done = run_lgd(*train_command(dataset_folder, tmp_path / "fast", *short))
    assert done.returncode == 0, done.stderr
    assert "TorchTrainer" not in done.stderr
    assert len(losses(tmp_path / "fast")) == 6
    assert losses(tmp_path / "public") == pytest.approx(losses(tmp_path / "fast"), abs=1e-4)
