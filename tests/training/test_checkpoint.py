"""Checkpoints: written, read back exactly, damaged, deleted."""

import json
import pickle
from pathlib import Path

import pytest
import torch

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.dataset.dataset import Dataset
from lgd.training import checkpoint
from lgd.training.run import Run, begin_run
from tests.training.test_run import NANO


@pytest.fixture
def run(tmp_path: Path, empty_dataset: Dataset) -> Run:
    return begin_run(str(tmp_path / "run"), "nano-rgb", NANO, dataset=empty_dataset)


def save(run: Run, step: int, network: torch.nn.Module, optimizer: torch.optim.Optimizer) -> str:
    """Write a checkpoint and return the name of the newest one."""
    writer = checkpoint.CheckpointWriter(run)
    writer.save(step, network, optimizer)
    writer.close()
    return checkpoint.names(run)[0]


def trained(steps: int) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """Return a small network after some training steps, and its optimizer."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    for step in range(steps):
        optimizer.zero_grad()
        network(torch.full((5, 3), step + 1.0).cumsum(0)).square().sum().backward()
        optimizer.step()
    return network, optimizer


def test_everything_is_read_back_bit_by_bit(run: Run):
    network, optimizer = trained(3)
    save(run, 3, network, optimizer)
    content = checkpoint.load_latest(run)
    assert content is not None
    assert (content["step"], content["position"]) == (3, 3 * run.config.batch_size)
    loaded, loaded_optimizer = trained(0)
    loaded.load_state_dict(content["model"])
    loaded_optimizer.load_state_dict(content["optimizer"])
    for a, b in zip(network.state_dict().values(), loaded.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(optimizer.state.values(), loaded_optimizer.state.values(), strict=True):
        assert torch.equal(a["momentum_buffer"], b["momentum_buffer"])


def test_the_newest_checkpoints_are_kept(run: Run):
    for step in (5, 90, 1000):
        save(run, step, *trained(0))
    assert checkpoint.names(run) == ["checkpoints/step-00001000.pt", "checkpoints/step-00000090.pt"]


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"text" * 99])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_used(run: Run, damage, capfd: pytest.CaptureFixture):
    save(run, 1, *trained(1))
    newest = Path(run.storage.path(save(run, 2, *trained(2))))
    newest.write_bytes(damage(newest.read_bytes()))
    content = checkpoint.load_latest(run)
    assert content is not None
    assert content["step"] == 1
    assert "step-00000002.pt is damaged" in capfd.readouterr().err.replace("\n", " ")


class Trap:
    """Creates a file when it is unpickled, like a hostile checkpoint."""

    def __reduce__(self):
        return (Path("created").touch, ())


def test_code_in_a_checkpoint_is_not_run(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    name = "checkpoints/step-00000007.pt"
    torch.save({"format": "lgd-checkpoint", "trap": Trap()}, run.storage.path(name))
    with pytest.raises(UserError, match="step-00000007"):
        checkpoint.load(run, name)
    Path(run.storage.path(name)).write_bytes(pickle.dumps(Trap()))
    with pytest.raises(UserError, match="step-00000007"):
        checkpoint.load(run, name)
    assert not Path("created").exists()


def test_a_checkpoint_of_a_different_program_or_version_is_refused(run: Run):
    name = "checkpoints/step-00000007.pt"
    for content, message in (
        ({"model": {}}, "not a checkpoint of lgd"),
        ({"format": "lgd-checkpoint", "version": 9}, "is a checkpoint of version 9, written by a newer version of lgd"),
        (
            {"format": "lgd-checkpoint", "version": 9, "run": json.dumps({"lgd": "0.8.0"})},
            r"written by lgd 0\.8\.0; lgd .* reads version 1: use that version or a later one",
        ),
    ):
        torch.save(content, run.storage.path(name))
        with pytest.raises(UserError, match=message):
            checkpoint.load(run, name)
    assert checkpoint.load_latest(run) is None


def test_the_best_checkpoint_is_kept_in_addition_to_the_newest_ones(run: Run):
    writer = checkpoint.CheckpointWriter(run)
    for step, top1 in ((1, 0.5), (2, 0.75), (3, 0.5), (4, None), (5, None)):
        if top1 is not None:
            assert writer.is_best(top1) == (step < 3)
        writer.save(step, *trained(0), best_top1=top1 if step < 3 else None)
    writer.close()
    assert [name[-5:-3] for name in checkpoint.names(run)] == ["05", "04", "02"]
    assert checkpoint.best(run) == {"checkpoint": "checkpoints/step-00000002.pt", "val_top1": 0.75}


def test_a_checkpoint_has_the_weights_of_the_moment_of_saving(run: Run):
    network, optimizer = trained(3)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    writer = checkpoint.CheckpointWriter(run)
    writer.save(3, network, optimizer)
    for parameter in network.parameters():
        parameter.data.zero_()
    writer.close()
    content = checkpoint.load(run, checkpoint.names(run)[0])
    assert all(torch.equal(content["model"][name], value) for name, value in before.items())


def test_an_error_of_writing_a_checkpoint_is_raised_by_the_next_call(run: Run, monkeypatch: pytest.MonkeyPatch):
    writer = checkpoint.CheckpointWriter(run)

    def full(*_: object) -> None:
        raise UserError("no space is left")

    monkeypatch.setattr(run.storage, "write", full)
    writer.save(1, *trained(0))
    with pytest.raises(UserError, match="no space is left"):
        writer.close()
