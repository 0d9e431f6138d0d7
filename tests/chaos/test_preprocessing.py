"""Preprocessing on a cluster while workers, nodes and the driver are killed, and the driver is stopped by SIGTERM, at
random: nothing is lost or changed."""

import itertools
import random
import signal
import sys
import time
from pathlib import Path

import pytest

from lgd.clusters.testbed.processes import ProcessTree, kill, run_lgd
from lgd.clusters.testbed.ray_nodes import RayNodes
from tests.preprocessing.test_job import assert_same_files

KILLS = ["worker"] * 4 + ["node"] * 3 + ["driver"] * 2 + ["stop"] * 2
SEED = 4

pytestmark = pytest.mark.chaos


def test_kills_of_workers_nodes_and_the_driver_do_not_change_the_bytes(nodes: RayNodes, videos: Path, tmp_path: Path):
    # OpenCV's solver is slow enough for kills while tasks are running.
    options = ("--short-side", 48, "--val-fraction", 0.34, "--flow.backend", "opencv")
    done = run_lgd("preprocess", videos, "--out", tmp_path / "undisturbed", *options)
    assert done.returncode == 0, done.stderr

    chance = random.Random(SEED)
    env = {**nodes.env, "RAY_ADDRESS": nodes.address}
    left = chance.sample(KILLS, len(KILLS))
    for number in itertools.takewhile(lambda _: left, itertools.count()):
        out = tmp_path / f"disturbed{number}"
        command = (sys.executable, "-m", "lgd", "preprocess", videos, "--out", out, *options)
        driver = ProcessTree(*command, env=env, log=tmp_path / "log")
        while driver.process.poll() is None:
            time.sleep(chance.uniform(0.2, 1.5))
            workers = [pid for node in nodes.nodes for pid in node.pids("ray::make_shard")]
            if left and workers:  # otherwise the job is starting or almost done
                kind = left.pop()
                if kind == "worker":
                    kill(chance.choice(workers))
                elif kind == "node":
                    nodes.kill(chance.choice(nodes.nodes))
                    nodes.add(cpus=1)
                else:
                    if kind == "stop":
                        driver.process.send_signal(signal.SIGTERM)
                        assert driver.process.wait(timeout=60) == 143, (tmp_path / "log").read_text()
                        assert temporary_files(out) == []
                    else:
                        driver.kill()
                    driver = ProcessTree(*command, env=env, log=tmp_path / "log")
        assert driver.process.returncode == 0, (tmp_path / "log").read_text()
        assert_same_files(out, tmp_path / "undisturbed")


def temporary_files(folder: Path) -> list[str]:
    """The locks and the files of tasks that have not ended, in a dataset."""
    return [path.name for path in folder.rglob(".*") if path.is_file()]
