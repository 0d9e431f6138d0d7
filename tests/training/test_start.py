from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lgd.pipeline.console.errors import UsageError, UserError
from lgd.pipeline.dataset.dataset import Dataset, StreamSpec
from lgd.training import checkpoint
from lgd.training.models.lgd import Network
from lgd.training.models.zoo import build
from lgd.training.recipes import TrainConfig, recipe_named
from lgd.training.run import begin_run
from lgd.training.start import check_initial_run, start_weights, with_absolute_paths
from tests.training.test_run import NANO

CLASSES = ("a", "b")


@pytest.fixture
def stage1(tmp_path: Path, empty_dataset: Dataset) -> tuple[str, Network]:
    """A run folder with a checkpoint, and the network of the checkpoint."""
    run = begin_run(str(tmp_path / "run"), "nano-rgb", NANO, dataset=empty_dataset)
    torch.manual_seed(1)
    network = build(NANO.model, 2, 3)
    writer = checkpoint.CheckpointWriter(run)
    writer.save(7, network, torch.optim.SGD(network.parameters(), lr=0.1))
    writer.close()
    return run.storage.root, network


def started(config: TrainConfig, classes: tuple[str, ...] = CLASSES, channels: int = 3) -> tuple[Network, str]:
    torch.manual_seed(2)
    network = build(config.model, len(classes), channels)
    report = start_weights(network, config, classes)
    return network, "" if report is None else str(report)


def equal_tensors(a: Network, b: Network) -> set[str]:
    theirs = b.state_dict()
    equal = {name for name, value in a.state_dict().items() if name in theirs and torch.equal(value, theirs[name])}
    return {name for name in equal if not name.endswith(("num_batches_tracked", "running_mean", "running_var"))}


def names(network: Network) -> set[str]:
    return {name for name, _ in network.named_parameters()}


@pytest.mark.parametrize("how", ["folder", "file"])
def test_stage_2_loads_everything_except_the_heads_from_a_run_or_a_checkpoint(stage1: tuple[str, Network], how: str):
    folder, network = stage1
    path = folder if how == "folder" else f"{folder}/checkpoints/step-00000007.pt"
    model = replace(NANO.model, stage=2, sketch_dimension=64)
    second, report = started(replace(NANO, model=model, init_from=path))
    heads = {name for name in names(network) if name.startswith(("local_head", "global_head"))}
    assert names(network) - heads <= equal_tensors(network, second)
    assert path in report
    assert "combination" in report
    assert "local_head" in report


def test_heads_are_loaded_only_for_the_same_classes(stage1: tuple[str, Network]):
    folder, network = stage1
    config = replace(NANO, init_from=folder)
    assert names(network) <= equal_tensors(network, started(config)[0])
    other, _ = started(config, classes=("a", "c"))
    assert not torch.equal(other.state_dict()["local_head.weight"], network.state_dict()["local_head.weight"])
    assert "res2.0.unit.spatial.conv.weight" in equal_tensors(network, other)


def test_rgb_into_flow_loads_everything_except_the_first_convolution(stage1: tuple[str, Network]):
    folder, network = stage1
    flow, report = started(replace(NANO, stream="flow", init_from=folder), channels=2)
    different = names(network) - equal_tensors(network, flow)
    assert len(different) == 1
    assert different.pop().startswith("stem")
    assert "mean over" in report


def test_weights_are_new_without_a_source(stage1: tuple[str, Network]):
    network, report = started(NANO)
    assert report == ""
    assert "res2.0.unit.spatial.conv.weight" not in equal_tensors(stage1[1], network)


def test_missing_files_and_weights_that_do_not_fit_are_refused(stage1: tuple[str, Network], tmp_path: Path):
    with pytest.raises(UsageError, match="not both"):
        with_absolute_paths(replace(NANO, init_from="a", imagenet="b"))
    with pytest.raises(UsageError, match="stage 2 starts from a network of stage 1"):
        with_absolute_paths(replace(NANO, model=replace(NANO.model, stage=2)))
    with pytest.raises(UserError, match=r"--init-from: .*nowhere does not exist"):
        with_absolute_paths(replace(NANO, init_from=str(tmp_path / "nowhere")))
    with pytest.raises(UserError, match="lgd3d_r50"):
        started(replace(NANO, model=replace(NANO.model, name="lgd3d_r50"), init_from=stage1[0]))


def test_frozen_parts_need_initial_weights_and_a_stage_of_the_network(tmp_path: Path):
    for until in ("res2", "res4", "heads"):
        with pytest.raises(
            UsageError, match=f"^--freeze-until {until} keeps the initial weights .*: give these weights"
        ):
            with_absolute_paths(replace(NANO, freeze_until=until))
    with pytest.raises(UsageError, match="lgd3d_nano has no res5: choose from none, res2, res3, res4, heads"):
        with_absolute_paths(replace(NANO, freeze_until="res5", init_from=str(tmp_path)))
    assert with_absolute_paths(replace(NANO, freeze_until="res4", init_from=str(tmp_path))).freeze_until == "res4"


@pytest.mark.parametrize("recipe", ["ucf101-rgb-r50", "hmdb51-flow-r101", "ucf101-flow-r50-com"])
def test_recipes_for_fine_tuning_need_a_run_to_start_from(recipe: str, tmp_path: Path):
    config = recipe_named(recipe)
    message = f"^{recipe} starts from a run on another dataset: give the folder of a {config.stream} run of "
    with pytest.raises(UsageError, match=message + f"{config.model.name} with --init-from$"):
        check_initial_run(recipe, config, str(tmp_path / "new"))
    check_initial_run("nano-rgb", NANO, str(tmp_path / "new"))


def test_a_run_of_another_depth_is_refused_before_the_workers_start(stage1: tuple[str, Network], tmp_path: Path):
    config = replace(recipe_named("ucf101-rgb-r50"), init_from=stage1[0])
    with pytest.raises(UserError, match=f"^--init-from {stage1[0]} is a run of lgd3d_nano, but lgd3d_r50 is trained"):
        check_initial_run("ucf101-rgb-r50", config, str(tmp_path / "new"))


def test_a_flow_run_for_rgb_is_refused_as_a_run_and_as_a_file(tmp_path: Path, empty_dataset: Dataset):
    specs = {"flow": StreamSpec("flow", {"fps": 25.0, "bound": 20.0})}
    config = replace(NANO, stream="flow")
    run = begin_run(
        str(tmp_path / "flow"), "nano-flow", config, dataset=replace(empty_dataset, specs=specs, streams=("flow",))
    )
    network = build(NANO.model, 2, 2)
    writer = checkpoint.CheckpointWriter(run)
    writer.save(7, network, torch.optim.SGD(network.parameters(), lr=0.1))
    writer.close()
    message = "is a flow run, but the stream rgb is trained: give an rgb run$"
    with pytest.raises(UserError, match=message):
        check_initial_run("nano-rgb", replace(NANO, init_from=run.storage.root), str(tmp_path / "new"))
    with pytest.raises(UserError, match=message):
        started(replace(NANO, init_from=f"{run.storage.root}/checkpoints/step-00000007.pt"))
    existing = tmp_path / "existing"
    begin_run(str(existing), "nano-rgb", NANO, dataset=empty_dataset)
    check_initial_run("nano-rgb", replace(NANO, init_from=run.storage.root), str(existing))  # it has its weights


def test_flow_from_an_rgb_run_is_possible_with_a_warning(
    stage1: tuple[str, Network], tmp_path: Path, capsys: pytest.CaptureFixture
):
    check_initial_run("nano-flow", replace(NANO, stream="flow", init_from=stage1[0]), str(tmp_path / "new"))
    assert f"warning: --init-from {stage1[0]} is an RGB run" in capsys.readouterr().err.replace("\n", " ")
    check_initial_run("nano-rgb", replace(NANO, init_from=stage1[0]), str(tmp_path / "new"))
    assert capsys.readouterr().err == ""


def test_paths_become_absolute_and_urls_do_not_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path)
    assert with_absolute_paths(replace(NANO, init_from="run")).init_from == str(tmp_path / "run")
    address = "https://example.org/resnet50.pth"
    assert with_absolute_paths(replace(NANO, imagenet=address)).imagenet == address
