"""Going back to an earlier checkpoint of a run."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.dataset.dataset import Dataset
from lgd.training import checkpoint
from lgd.training.recipes import CheckpointConfig, OptimizerConfig
from lgd.training.report.history import read_history
from lgd.training.resume_from import go_back
from lgd.training.run import METRICS, RESULT, Run, begin_run, changed_fields, open_run, save_changes
from lgd.training.steps.step import create_network
from tests.training.runs import without_repeats
from tests.training.test_run import NANO

CONFIG = replace(NANO, checkpoint=CheckpointConfig(keep=4))
TOP1 = {20: 0.5, 40: 0.3, 60: 0.4, 80: 0.9}


@pytest.fixture
def run(empty_dataset: Dataset, tmp_path: Path) -> Run:
    """A finished run with the checkpoints of four steps that were validated; the last one is the best."""
    run = begin_run(str(tmp_path / "run"), "nano-rgb", CONFIG, dataset=empty_dataset)
    network, optimizer = create_network(CONFIG, len(run.classes), torch.device("cpu"))
    writer = checkpoint.CheckpointWriter(run)
    for step in TOP1:
        writer.save(step, network, optimizer, best_top1=TOP1[step])
    writer.close()
    lines = [{"step": step, "loss": 1.0} for step in range(5, 85, 5)]
    lines += [{"step": step, "val_top1": top1, "val_top5": 1.0} for step, top1 in TOP1.items()]
    lines.sort(key=lambda line: line["step"])
    run.storage.write(METRICS, "".join(json.dumps(line) + "\n" for line in lines).encode() + b'{"step": 85, "lo')
    run.storage.write(RESULT, json.dumps({"steps": 80, "val_top1": 0.9}).encode())
    return run


def lines_of(run: Run) -> list[dict]:
    return [json.loads(line) for line in run.storage.read(METRICS).splitlines()]


def test_the_chosen_checkpoint_becomes_the_newest_and_later_lines_do_not_count(run: Run, capsys: pytest.CaptureFixture):
    go_back(run, 40, {"optimizer.lr": (0.02, 0.01)})
    latest = checkpoint.load_latest(run)
    assert latest is not None
    assert latest["step"] == 40
    assert checkpoint.names(run) == [checkpoint.checkpoint_name(step) for step in (40, 20)]
    assert run.result() is None
    assert checkpoint.best(run) == {"checkpoint": checkpoint.checkpoint_name(20), "val_top1": 0.5}
    lines = lines_of(run)  # without the incomplete one
    assert lines[-1] == {"step": 40, "resumed": True, "from": 80, "changed": {"optimizer.lr": [0.02, 0.01]}}
    assert [line["step"] for line in without_repeats(lines) if "loss" in line] == list(range(5, 45, 5))
    said = "went back from step 80 to the checkpoint of step 40, --optimizer.lr: 0.02 -> 0.01"
    assert capsys.readouterr().err == f"{said}; deleted the checkpoints of steps 60 and 80\n"
    history = read_history(run.storage)
    assert (history.steps, history.resumptions, history.repeated, history.messages) == (40, 0, 0, (said,))
    assert history.curves["val_top1"].value.tolist() == [0.5, 0.3]


def test_going_back_again_changes_nothing_and_a_kept_best_checkpoint_stays(run: Run):
    go_back(run, 80, {})  # the newest one
    assert len(checkpoint.names(run)) == 4
    best = checkpoint.best(run)
    assert best is not None
    assert best["checkpoint"] == checkpoint.checkpoint_name(80)
    go_back(run, 60, {})
    kept, best = checkpoint.names(run), checkpoint.best(run)
    go_back(run, 60, {})
    assert (checkpoint.names(run), checkpoint.best(run)) == (kept, best)


def test_without_a_validated_checkpoint_none_is_the_best(run: Run):
    run.storage.write(METRICS, b'{"step": 80, "val_top1": 0.9, "val_top5": 1.0}\n')
    go_back(run, 20, {})
    assert checkpoint.best(run) is None


@pytest.mark.parametrize("step", [0, 30, 81, -1])
def test_a_step_without_a_checkpoint_is_refused_with_those_that_exist(run: Run, step: int):
    before = {name: run.storage.read(name) for name in run.storage.list_all()}
    with pytest.raises(UserError, match=rf"no checkpoint of step {step}: choose --resume-from 80, 60, 40 or 20$"):
        go_back(run, step, {})
    run.storage.write(checkpoint.checkpoint_name(40), b"damaged")
    with pytest.raises(UserError, match=r"step-00000040.pt is damaged"):
        go_back(run, 40, {})
    run.storage.write(checkpoint.checkpoint_name(40), before[checkpoint.checkpoint_name(40)])
    assert {name: run.storage.read(name) for name in run.storage.list_all()} == before


def test_a_run_without_checkpoints_and_a_new_run_are_refused(empty_dataset: Dataset, tmp_path: Path):
    folder = str(tmp_path / "new")
    with pytest.raises(UserError, match=r"is not a run with checkpoints: start it without --resume-from"):
        begin_run(folder, "nano-rgb", CONFIG, dataset=empty_dataset, resume_from=40)
    assert not (tmp_path / "new").exists()
    with pytest.raises(UserError, match=r"has no checkpoints: rerun without --resume-from"):
        go_back(begin_run(folder, "nano-rgb", CONFIG, dataset=empty_dataset), 40, {})


def test_only_the_options_of_the_optimizer_may_change_and_config_json_keeps_the_rest(run: Run, empty_dataset: Dataset):
    slower = replace(CONFIG, optimizer=OptimizerConfig(lr=0.001, max_grad_norm=5.0))
    folder = run.storage.address
    with pytest.raises(UserError, match=r"--optimizer.lr: .* -> 0.001"):
        begin_run(folder, "nano-rgb", slower, dataset=empty_dataset)
    with pytest.raises(UserError, match=r"different configuration \(--batch-size: \d+ -> 12\)"):
        begin_run(folder, "nano-rgb", replace(slower, batch_size=12), dataset=empty_dataset, resume_from=40)
    document = json.loads(run.storage.read("config.json"))
    document["config"]["optimizer.rate"] = document["config"].pop("optimizer.lr")  # as lgd 0.1 wrote it
    del document["config"]["normalization_group"]
    run.storage.write("config.json", json.dumps(document).encode())
    changed = begin_run(folder, "nano-rgb", slower, dataset=empty_dataset, resume_from=40)
    assert changed_fields(changed)["optimizer.lr"] == (NANO.optimizer.lr, 0.001)
    save_changes(changed)
    after = json.loads(run.storage.read("config.json"))
    assert after["config"].keys() == document["config"].keys()
    assert after["config"]["optimizer.rate"] == 0.001
    assert open_run(folder).config.optimizer == slower.optimizer
    assert changed_fields(changed) == {}
    again = begin_run(folder, "nano-rgb", slower, dataset=empty_dataset)  # resumes without --resume-from
    assert again.config.normalization_group == 0
