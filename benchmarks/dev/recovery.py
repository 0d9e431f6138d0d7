"""The time from the SIGKILL of a node to the next training step, beside Ray Train's own way; run it in a checkout.

    python -m lgd.benchmarks.dev.recovery --data DATASET             # `lgd preprocess ... --short-side 64` makes one

A cluster of a head and two nodes, each a set of processes of its own on this machine, trains nano-rgb on both nodes. A
node is killed, training goes on with the other, a new node comes and is taken in, and so on. The plain way is the same
program with Ray's own time-out for the room of a worker group, 60 s, and its own view of the nodes, 20 s old. Exits
with 1 where the median of ours is above CLAIM_S.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table
from tyro.conf import FlagCreatePairsOff

from lgd.clusters.testbed.processes import ProcessTree
from lgd.clusters.testbed.ray_nodes import RayNodes, ray_nodes
from lgd.pipeline.console.progress import say

CLAIM_S = 30.0
PATIENCE_S = 240.0
OURS = "from lgd import cli; cli.main()"
PLAIN = "import contextlib, lgd.training.elastic as e; from lgd import cli; e.NodeWatch = contextlib.nullcontext; cli.main()"
PLAIN_ENVIRONMENT = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "60"}


@dataclass(frozen=True)
class Options:
    """What is trained on, and how often a node is killed."""

    data: Path
    """Folder of a dataset of frames of 64 pixels or more."""
    kills: int = 5
    """Nodes killed our way."""
    plain_kills: int = 1
    """Nodes killed the plain way; 0 leaves it out."""
    json: bool = False
    """Print the result as one JSON document."""


class Disturbed:
    """A run on two nodes of `nodes`, and what its log says."""

    def __init__(self, nodes: RayNodes, folder: Path, data: Path, *, program: str, environment: dict[str, str]):
        self._nodes, self._run = nodes, folder / "run"
        self.log = folder / "log"
        self.driver = ProcessTree(
            *(sys.executable, "-c", program, "train", "nano-rgb", "--data", data, "--run", self._run),
            *("--num-workers", 1, 2, "--epochs", 100_000, "--validation.every", 0, "--checkpoint.every-s", 3),
            env={**nodes.env, **environment, "RAY_ADDRESS": nodes.address},
            log=self.log,
        )

    def steps(self) -> list[dict[str, Any]]:
        """The lines about training steps."""
        path = self._run / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in map(json.loads, lines) if "loss" in line]

    def wait(self, ready: Callable[[list[dict[str, Any]]], bool]) -> float:
        """Until the steps from now on are `ready`; the seconds that took."""
        before, start = len(self.steps()), time.time()
        while not ready(new := self.steps()[before:]):
            if self.driver.process.poll() is not None or time.time() - start > PATIENCE_S:
                raise SystemExit(f"training does not go on:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.1)
        return float(new[-1]["time"]) - start

    def kill(self) -> tuple[float, float]:
        """Kills a node and adds one: seconds to the next step, and from the new node's start until both train."""
        self.wait(lambda new: len(new) >= 3)
        self._nodes.kill(self._nodes.nodes[0])
        back = self.wait(lambda new: any(line["workers"] == 1 for line in new))
        self._nodes.add(cpus=1)
        return back, self.wait(lambda new: any(line["workers"] == 2 for line in new))


@contextmanager
def training(data: Path, program: str, environment: dict[str, str]) -> Iterator[Disturbed]:
    with tempfile.TemporaryDirectory(prefix="lgd-recovery-") as folder, ray_nodes() as nodes:
        nodes.add(cpus=1)
        nodes.add(cpus=1)
        nodes.wait_for(cpus=2)
        disturbed = Disturbed(nodes, Path(folder), data, program=program, environment=environment)
        try:
            disturbed.wait(lambda new: any(line["workers"] == 2 for line in new))
            yield disturbed
        finally:
            disturbed.driver.kill()


def measure(options: Options) -> dict[str, Any]:
    ways = {"ours": (options.kills, OURS, {}), "plain": (options.plain_kills, PLAIN, PLAIN_ENVIRONMENT)}
    document: dict[str, Any] = {"cores": len(os.sched_getaffinity(0)), "claim_s": CLAIM_S}
    for way, (kills, program, environment) in ways.items():
        back: list[float] = []
        taken_in: list[float] = []
        if kills:
            with training(options.data.absolute(), program, environment) as disturbed:
                for number in range(kills):
                    for times, seconds in zip((back, taken_in), disturbed.kill(), strict=True):
                        times.append(round(seconds, 1))
                    say(f"{way}: kill {number + 1} of {kills}: {back[-1]} s to the next step")
        document[way] = {"to_next_step_s": back, "to_both_training_s": taken_in}
    document["median_s"] = median(document["ours"]["to_next_step_s"])
    return document


def main() -> None:
    options = tyro.cli(Options, config=(FlagCreatePairsOff,), description=__doc__)
    document = measure(options)
    if options.json:
        print(json.dumps(document, indent=2))
    else:
        table = Table("way", "SIGKILL to the next step, s", "new node to both training, s", "median")
        for way in ("ours", "plain"):
            back, taken_in = document[way].values()
            words = (" ".join(f"{seconds:.1f}" for seconds in times) for times in (back, taken_in))
            table.add_row(way, *words, f"{median(back):.1f}" if back else "")
        Console(highlight=False).print(table)
    if document["median_s"] > CLAIM_S:
        say(f"the median is above {CLAIM_S:.0f} s")
        sys.exit(1)


if __name__ == "__main__":
    main()
