"""What a run says of itself: numbers of some steps at a time, agreed on by the workers, to JSONL and TensorBoard."""

import json
import math
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from lgd.pipeline.console.errors import UserError
from lgd.training import checkpoint
from lgd.training.run import METRICS, Run

LOG_EVERY_S = 2.0  # also the pace of ray.train.report, which is a barrier
EXPLODED = 1e4  # a loss above it comes back from nowhere: guessing among a million classes costs 14
UPLOAD_EVERY_S = 30.0  # of the metrics of a run in an object store, which has no files that grow


@dataclass(frozen=True)
class WindowReport:
    """What the workers agree on at the end of a window. numbers: means of its steps; losses: of each of them."""

    steps: int
    seconds: float
    numbers: dict[str, float]
    losses: list[float]
    steps_until_next: int


class LogWindow:
    """The steps since the last line of the log. Numbers stay on the device until the window is reduced."""

    def __init__(self, step: int, batch: int, device: torch.device):
        self._batch, self._device, self._next_step = batch, device, step
        self._waited = 0.0
        self._begin()

    def _begin(self) -> None:
        self._first_step, self._started, self._paused = self._next_step, time.monotonic(), 0.0
        self._rows: list[torch.Tensor] = []
        self._keys: list[list[str]] = []
        self._positions: list[int] = []

    def add(
        self, paths: dict[str, torch.Tensor], right: torch.Tensor, keys: list[str], *, positions: list[int]
    ) -> None:
        """Numbers of one step, each this worker's part of the global batch's mean, and the clips that it took."""
        self._paths = list(paths)
        self._rows.append(torch.stack([*paths.values(), right]))
        self._keys.append(keys)
        self._positions += positions
        self._next_step += 1

    def pause(self, seconds: float) -> None:
        """Leaves seconds that were spent on something else out of the step time."""
        self._paused += seconds

    def reduce(self, run: Run, data_wait_s: float, skipped: int, *, rank: int) -> WindowReport:
        """Sums over the workers and begins the next window.

        Raises UserError, in every worker, when a loss was not finite or has exploded, and RuntimeError when the clips
        that the workers took are not those of the steps, each once."""
        seconds = max(time.monotonic() - self._started - self._paused, 1e-9)
        steps = len(self._rows)
        pace = max(round(LOG_EVERY_S * steps / seconds), 1)
        # The pace is rank 0's; summed with zeros of the others it reaches everybody.
        mine = [(data_wait_s - self._waited) / seconds, 1.0, skipped, pace if rank == 0 else 0]
        numbers = torch.tensor(mine, dtype=torch.float64)
        local = torch.cat([numbers, self._taken()]).to(self._device)
        everything = torch.cat([local, torch.stack(self._rows).double().flatten()])
        if dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(everything)
        waited, workers, skipped_by_all, pace = everything[: len(mine)].tolist()
        taken, rows = everything[len(mine) : len(local)], everything[len(local) :].view(steps, -1)
        self._check_loss(run, rows)
        self._check_positions(taken, skipped_by_all)
        means = rows.mean(dim=0).tolist()
        losses = {f"loss_{path}": round(value, 6) for path, value in zip(self._paths, means, strict=False)}
        report = WindowReport(
            steps,
            seconds,
            {
                "loss": round(math.fsum(means[:-1]), 6),
                **losses,
                "top1": round(means[-1], 4),
                "step_s": round(seconds / steps, 4),
                "data_wait": round(waited / workers, 4),
                "skipped": int(skipped_by_all),
            },
            [round(loss, 6) for loss in rows[:, :-1].sum(dim=1).tolist()],
            int(pace),
        )
        self._waited = data_wait_s
        self._begin()
        return report

    def _check_loss(self, run: Run, rows: torch.Tensor) -> None:
        """rows: of each step, the losses of all paths and the share of right answers."""
        sound = rows.isfinite().all(dim=1) & (rows[:, :-1].sum(dim=1) < EXPLODED)
        if sound.all():
            return
        bad = int((~sound).nonzero()[0])
        newest = checkpoint.names(run)
        raise UserError(
            f"the loss is not finite or above {EXPLODED:g} after step {self._first_step + bad} (this worker's clips: "
            f"{', '.join(self._keys[bad])}): train with a smaller --optimizer.lr; "
            f"last good checkpoint: {newest[0] if newest else 'none yet'}"
        )

    def _taken(self) -> torch.Tensor:
        """How often this worker took each position of the window's steps, and, as the last number, any other."""
        first, end = self._first_step * self._batch, self._next_step * self._batch
        places = torch.tensor(self._positions, dtype=torch.int64) - first
        places[(places < 0) | (places >= end - first)] = end - first
        return torch.bincount(places, minlength=end - first + 1).double()

    def _check_positions(self, taken: torch.Tensor, skipped: float) -> None:
        """taken: by all workers. skipped: clips that were left out so far, in this window or in batches read ahead."""
        wrong = (taken[:-1] > 1) | (taken[:-1] < 1) & (skipped == 0)
        missing = int((taken[:-1] < 1).sum())
        if taken[-1] or wrong.any() or missing > skipped:
            first, end = self._first_step * self._batch, self._next_step * self._batch
            counts = (
                f"{missing} not taken, {int((taken[:-1] > 1).sum())} more than once, {int(taken[-1])} of other steps"
            )
            raise RuntimeError(f"the workers took not each of the clips {first} to {end - 1} once ({counts})")


class MetricsLog:
    """metrics.jsonl and TensorBoard, written by rank 0: in place, or for a run in an object store on the local disk and
    put there now and then.

    A run that goes on from a checkpoint writes some steps a second time: a line with `resumed` says that what stands
    before it and is of a later step does not count."""

    def __init__(self, run: Run, step: int):
        from torch.utils.tensorboard import SummaryWriter  # here, because only one of the workers needs it

        self._storage = run.storage
        self._folder = Path(run.storage.path() if run.storage.local else tempfile.mkdtemp(prefix="lgd-metrics-"))
        if not run.storage.local and run.storage.exists(METRICS):
            (self._folder / METRICS).write_bytes(run.storage.read(METRICS))
        self._file = open(self._folder / METRICS, "a", buffering=1, encoding="utf-8")  # noqa: SIM115 (closed in close)
        self._board = SummaryWriter(str(self._folder / "tensorboard"), purge_step=step)
        self._put = time.monotonic()
        if step or self._file.tell():
            self._file.write(json.dumps({"step": step, "resumed": True}) + "\n")

    def say(self, text: str) -> None:
        """A line for the person who watches."""
        self._file.write(json.dumps({"step": 0, "say": text}) + "\n")

    def write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps({**line, "time": round(time.time(), 3)}) + "\n")
        for name, value in line.items():
            if name != "step" and not isinstance(value, list):
                self._board.add_scalar(name, value, line["step"])
        self._board.flush()
        if not self._storage.local and time.monotonic() - self._put > UPLOAD_EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Puts all lines so far to where they outlive this process. Due before a checkpoint: a run that goes on from
        it writes no line of the steps before it."""
        if self._storage.local:
            return  # every line is written at once
        for path in self._folder.rglob("*"):
            if path.is_file():
                self._storage.write(path.relative_to(self._folder).as_posix(), path.read_bytes())
        self._put = time.monotonic()

    def close(self) -> None:
        self._file.close()
        self._board.close()
        self.flush()
        if not self._storage.local:
            shutil.rmtree(self._folder)
