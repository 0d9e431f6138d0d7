import pickle
from pathlib import Path

import pytest
import torch

from pipeline.dataset import Dataset
from pipeline.errors import UserError
from tests.test_run import CONFIGURATION
from tests.test_run import data as data  # a fixture
from training import checkpoint
from training.run import Run, begin_run


@pytest.fixture
def run(tmp_path: Path, data: Dataset) -> Run:
    return begin_run(str(tmp_path / "run"), "nano-rgb", CONFIGURATION, data)


def trained(steps: int) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    for step in range(steps):
        optimizer.zero_grad()
        network(torch.full((5, 3), step + 1.0).cumsum(0)).square().sum().backward()
        optimizer.step()
    return network, optimizer


def test_everything_comes_back_bit_by_bit(run: Run):
    network, optimizer = trained(3)
    checkpoint.save(run, 3, network, optimizer)
    content = checkpoint.load_latest(run)
    assert content is not None
    assert (content["step"], content["position"]) == (3, 48)
    fresh, fresh_optimizer = trained(0)
    fresh.load_state_dict(content["model"])
    fresh_optimizer.load_state_dict(content["optimizer"])
    for a, b in zip(network.state_dict().values(), fresh.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(optimizer.state.values(), fresh_optimizer.state.values(), strict=True):
        assert torch.equal(a["momentum_buffer"], b["momentum_buffer"])


def test_the_newest_are_kept(run: Run):
    for step in (5, 90, 1000):
        checkpoint.save(run, step, *trained(0))
    assert checkpoint.names(run) == ["checkpoints/step-00001000.pt", "checkpoints/step-00000090.pt"]


@pytest.mark.parametrize("spoil", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"text" * 99])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(run: Run, spoil, capfd: pytest.CaptureFixture):
    checkpoint.save(run, 1, *trained(1))
    newest = Path(run.storage.path(checkpoint.save(run, 2, *trained(2))))
    newest.write_bytes(spoil(newest.read_bytes()))
    content = checkpoint.load_latest(run)
    assert content is not None
    assert content["step"] == 1
    assert "step-00000002.pt is damaged" in capfd.readouterr().err.replace("\n", " ")


class Bomb:
    def __reduce__(self):
        return (Path("exploded").touch, ())


def test_code_in_a_checkpoint_is_not_run(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    name = "checkpoints/step-00000007.pt"
    torch.save({"format": "lgd-checkpoint", "bomb": Bomb()}, run.storage.path(name))
    with pytest.raises(UserError, match="step-00000007"):
        checkpoint.load(run, name)
    Path(run.storage.path(name)).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UserError, match="step-00000007"):
        checkpoint.load(run, name)
    assert not Path("exploded").exists()


def test_another_programs_checkpoint_and_another_version_are_refused(run: Run):
    name = "checkpoints/step-00000007.pt"
    for content, message in (
        ({"model": {}}, "not a checkpoint of this"),
        ({"format": "lgd-checkpoint", "version": 9}, "9"),
    ):
        torch.save(content, run.storage.path(name))
        with pytest.raises(UserError, match=message):
            checkpoint.load(run, name)
    assert checkpoint.load_latest(run) is None
