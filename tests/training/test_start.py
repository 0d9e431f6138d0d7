from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lgd.pipeline.console.errors import UsageError, UserError
from lgd.pipeline.dataset.dataset import Dataset
from lgd.training import checkpoint
from lgd.training.models.lgd import Network
from lgd.training.models.zoo import build
from lgd.training.recipes import TrainConfig
from lgd.training.run import begin_run
from lgd.training.start import located, start_weights
from tests.training.test_run import CONFIGURATION
from tests.training.test_run import data as data  # a fixture

CLASSES = ("a", "b")


@pytest.fixture
def stage1(tmp_path: Path, data: Dataset) -> tuple[str, Network]:
    """A run folder with a checkpoint of a network, and that network."""
    run = begin_run(str(tmp_path / "run"), "nano-rgb", CONFIGURATION, dataset=data)
    torch.manual_seed(1)
    network = build(CONFIGURATION.model, 2, 3)
    writer = checkpoint.CheckpointWriter(run)
    writer.save(7, network, torch.optim.SGD(network.parameters(), lr=0.1))
    writer.close()
    return run.storage.root, network


def started(config: TrainConfig, classes: tuple[str, ...] = CLASSES, channels: int = 3) -> tuple[Network, str]:
    torch.manual_seed(2)
    network = build(config.model, len(classes), channels)
    return network, start_weights(network, config, classes)


def equal_parts(a: Network, b: Network) -> set[str]:
    theirs = b.state_dict()
    equal = {name for name, value in a.state_dict().items() if name in theirs and torch.equal(value, theirs[name])}
    return {name for name in equal if not name.endswith(("num_batches_tracked", "running_mean", "running_var"))}


def names(network: Network) -> set[str]:
    return {name for name, _ in network.named_parameters()}


@pytest.mark.parametrize("how", ["folder", "file"])
def test_stage_2_takes_everything_but_the_heads_from_a_run_or_a_checkpoint(stage1: tuple[str, Network], how: str):
    folder, network = stage1
    path = folder if how == "folder" else f"{folder}/checkpoints/step-00000007.pt"
    model = replace(CONFIGURATION.model, stage=2, sketch_dimension=64)
    second, report = started(replace(CONFIGURATION, model=model, init_from=path))
    heads = {name for name in names(network) if name.startswith(("local_head", "global_head"))}
    assert names(network) - heads <= equal_parts(network, second)
    assert path in report
    assert "combination" in report
    assert "local_head" in report


def test_heads_are_kept_for_the_same_classes_only(stage1: tuple[str, Network]):
    folder, network = stage1
    config = replace(CONFIGURATION, init_from=folder)
    assert names(network) <= equal_parts(network, started(config)[0])
    other, _ = started(config, classes=("a", "c"))
    assert not torch.equal(other.state_dict()["local_head.weight"], network.state_dict()["local_head.weight"])
    assert "res2.0.unit.spatial.conv.weight" in equal_parts(network, other)


def test_rgb_into_flow_keeps_all_but_the_first_convolution(stage1: tuple[str, Network]):
    folder, network = stage1
    flow, report = started(replace(CONFIGURATION, stream="flow", init_from=folder), channels=2)
    different = names(network) - equal_parts(network, flow)
    assert len(different) == 1
    assert different.pop().startswith("stem")
    assert "mean over" in report


def test_without_anything_to_start_from_the_weights_are_new(stage1: tuple[str, Network]):
    network, report = started(CONFIGURATION)
    assert report == ""
    assert "res2.0.unit.spatial.conv.weight" not in equal_parts(stage1[1], network)


def test_what_is_not_there_or_does_not_fit_is_refused(stage1: tuple[str, Network], tmp_path: Path):
    with pytest.raises(UsageError, match="not from both"):
        located(replace(CONFIGURATION, init_from="a", imagenet="b"))
    with pytest.raises(UsageError, match="stage 2 tunes a network of stage 1"):
        located(replace(CONFIGURATION, model=replace(CONFIGURATION.model, stage=2)))
    with pytest.raises(UserError, match="--init-from takes a file that is there"):
        located(replace(CONFIGURATION, init_from=str(tmp_path / "nowhere")))
    with pytest.raises(UserError, match="lgd3d_r50"):
        started(replace(CONFIGURATION, model=replace(CONFIGURATION.model, name="lgd3d_r50"), init_from=stage1[0]))


def test_paths_are_made_absolute_and_addresses_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path)
    assert located(replace(CONFIGURATION, init_from="run")).init_from == str(tmp_path / "run")
    address = "https://example.org/resnet50.pth"
    assert located(replace(CONFIGURATION, imagenet=address)).imagenet == address
