"""Training on a cluster whose nodes are killed, replaced and preempted, and that is stopped by SIGTERM and resumed:
each clip is used once, and the losses are those of an undisturbed training with one worker."""

import itertools
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lgd.clusters.testbed.processes import ProcessTree, run_lgd
from lgd.clusters.testbed.ray_nodes import RayNodes
from tests.training.runs import losses, metrics, positions, without_repeats

pytestmark = pytest.mark.chaos


def test_training_on_nodes_that_are_killed_and_replaced_uses_each_clip_once_and_has_the_losses_of_one_worker(
    nodes: RayNodes, dataset_folder: Path, tmp_path: Path
):
    # The normalization group of 4 clips is on one worker or spread over two. A low learning rate: with that of the
    # recipe, rounding errors of sums in a different order grow tenfold in 30 steps, even without disturbances.
    options = (
        *("--transform.crop", 48, "--batch-size", 4, "--epochs", 60, "--validation.every", 0),
        *("--checkpoint.every-s", 1),
    )
    exact = ("--normalization-group", 4, "--optimizer.lr", 1e-6)
    words = ("train", "nano-rgb", "--data", dataset_folder, *options, *exact)
    undisturbed, disturbed, log = tmp_path / "undisturbed", tmp_path / "disturbed", tmp_path / "log"
    done = run_lgd(*words, "--run", undisturbed, "--num-workers", 1, 1)
    assert done.returncode == 0, done.stderr

    env = {**nodes.env, "RAY_ADDRESS": nodes.address}
    command = (sys.executable, "-m", "lgd", *words, "--run", disturbed, "--num-workers", 1, 2)
    driver = ProcessTree(*command, env=env, log=log)

    def count(kind: str) -> int:
        return sum(kind in line for line in metrics(disturbed))

    def wait(ready: Callable[[], bool]) -> None:
        while not ready():
            assert driver.process.poll() is None, log.read_text()
            time.sleep(0.1)

    def wait_for_more(kind: str, more: int) -> None:
        target = count(kind) + more
        wait(lambda: count(kind) >= target)

    message = "a node will be removed soon: writing a checkpoint"
    for announced in (False, True, False):
        wait_for_more("loss", 3)  # steps that are lost by the kill
        victim = next(node for node in nodes.nodes if node.pids("ray::RayTrainWorker"))
        if announced:
            nodes.announce_preemption(victim)
            wait(lambda: any(line.get("say") == message for line in metrics(disturbed)))
            lines = metrics(disturbed)
            step = next(last["step"] for last, line in itertools.pairwise(lines) if line.get("say") == message)
            wait((disturbed / "checkpoints" / f"step-{step:08d}.pt").exists)
        nodes.kill(victim)
        wait_for_more("resumed", 1)
        nodes.add(cpus=1)
    wait_for_more("loss", 3)
    driver.process.send_signal(signal.SIGTERM)
    assert driver.process.wait(timeout=60) == 143, log.read_text()
    assert driver.pids() == []
    stopped = max(path.name for path in (disturbed / "checkpoints").iterdir())
    step = int(stopped.removeprefix("step-").removesuffix(".pt"))
    assert f"lgd: stopped by SIGTERM; checkpoint of step {step} written" in log.read_text()
    driver = ProcessTree(*command, env=env, log=log)
    wait_for_more("resumed", 1)
    assert [line["step"] for line in metrics(disturbed) if "resumed" in line][-1] == step
    assert driver.process.wait(timeout=300) == 0, log.read_text()

    lines = metrics(disturbed)
    workers = {line["workers"] for line in lines if "loss" in line}
    assert workers == {1, 2}
    assert sum("resumed" in line for line in lines) >= 3
    assert positions(without_repeats(lines)) == list(range(180 * 4))
    assert losses(disturbed) == pytest.approx(losses(undisturbed), abs=1e-4)
