"""Metrics of a training: numbers of several steps, reduced over the workers, to metrics.jsonl and TensorBoard."""

import json
import math
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.storage.paths import check_file
from lgd.training import checkpoint
from lgd.training.run import METRICS, Run

LOG_EVERY_S = 2.0  # also the interval of ray.train.report, which is a barrier
MAX_LOSS = 1e4  # training does not recover from a higher loss: random guessing among a million classes costs 14
UPLOAD_EVERY_S = 30.0  # for the metrics of a run in an object store, which cannot append to files


@dataclass(frozen=True)
class WindowReport:
    """Metrics of the steps of a window, the same on every worker.

    steps: number of steps. seconds: their duration. metrics: means over the steps. losses: loss of each step.
    grad_norms: norm of the gradient of each step. steps_until_next: steps from the end of this window to the end of the
    next."""

    steps: int
    seconds: float
    metrics: dict[str, float]
    losses: list[float]
    grad_norms: list[float]
    steps_until_next: int


class LogWindow:
    """The steps since the last line of the metrics. Their numbers stay on the device until the window is reduced."""

    def __init__(self, step: int, batch_size: int, device: torch.device):
        self._batch_size, self._device, self._next_step = batch_size, device, step
        self._data_wait_s = 0.0  # until the start of the window
        self._begin()

    def _begin(self) -> None:
        self._first_step, self._started, self._paused = self._next_step, time.monotonic(), 0.0
        self._rows: list[torch.Tensor] = []
        self._grad_norms: list[torch.Tensor] = []
        self._keys: list[list[str]] = []
        self._positions: list[int] = []

    def add(
        self,
        losses: dict[str, torch.Tensor],
        correct: torch.Tensor,
        keys: list[str],
        *,
        positions: list[int],
        grad_norm: torch.Tensor,
    ) -> None:
        """Add one step.

        losses, correct, grad_norm: result of `train_step`. keys, positions: of this worker's clips."""
        self._paths = list(losses)
        self._rows.append(torch.stack([*losses.values(), correct]))
        self._grad_norms.append(grad_norm)
        self._keys.append(keys)
        self._positions += positions
        self._next_step += 1

    def pause(self, seconds: float) -> None:
        """Exclude seconds that were not spent on training steps."""
        self._paused += seconds

    def reduce(self, run: Run, data_wait_s: float, skipped: int, *, rank: int) -> WindowReport:
        """Reduce the window over the workers and begin the next one.

        data_wait_s, skipped: of this worker since its start: seconds of waiting for data, clips left out as damaged.
        Raises UserError, in every worker, for a loss that is not finite or above MAX_LOSS, and RuntimeError if the
        workers together did not use each clip of the steps exactly once."""
        seconds = max(time.monotonic() - self._started - self._paused, 1e-9)
        steps = len(self._rows)
        pace = max(round(LOG_EVERY_S * steps / seconds), 1)
        # All workers take rank 0's pace: the others add 0 to it.
        scalars = [(data_wait_s - self._data_wait_s) / seconds, 1.0, skipped, pace if rank == 0 else 0]
        numbers = torch.tensor(scalars, dtype=torch.float64)
        local = torch.cat([numbers, self._use_counts()]).to(self._device)
        reduced = torch.cat([local, torch.stack(self._rows).double().flatten()])
        if dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(reduced)
        data_wait, workers, skipped_by_all, pace = reduced[: len(scalars)].tolist()
        use_counts, rows = reduced[len(scalars) : len(local)], reduced[len(local) :].view(steps, -1)
        grad_norms = torch.stack(self._grad_norms).double()  # of the global batch: the same on every worker
        self._check_losses(run, rows, grad_norms)
        self._check_positions(use_counts, skipped_by_all)
        means = rows.mean(dim=0).tolist()
        path_losses = {f"loss_{path}": round(value, 6) for path, value in zip(self._paths, means, strict=False)}
        report = WindowReport(
            steps,
            seconds,
            {
                "loss": round(math.fsum(means[:-1]), 6),
                **path_losses,
                "top1": round(means[-1], 4),
                "grad_norm": round(grad_norms.mean().item(), 6),
                "step_s": round(seconds / steps, 4),
                "data_wait": round(data_wait / workers, 4),
                "skipped": int(skipped_by_all),
            },
            [round(loss, 6) for loss in rows[:, :-1].sum(dim=1).tolist()],
            [round(norm, 6) for norm in grad_norms.tolist()],
            int(pace),
        )
        self._data_wait_s = data_wait_s
        self._begin()
        return report

    def _check_losses(self, run: Run, rows: torch.Tensor, grad_norms: torch.Tensor) -> None:
        """Raise UserError for a bad loss or gradient, with which the weights are lost: no checkpoint is written then.

        rows: one per step, with the losses of all paths and the fraction correct."""
        good_losses = rows.isfinite().all(dim=1) & (rows[:, :-1].sum(dim=1) < MAX_LOSS)
        good = good_losses & grad_norms.isfinite()
        if good.all():
            return
        bad = int((~good).nonzero()[0])
        what = "the gradient is not finite" if good_losses[bad] else f"the loss is not finite or above {MAX_LOSS:g}"
        lower = "a lower --optimizer.lr or a --optimizer.max-grad-norm"
        if steps := [str(checkpoint.step_of(name)) for name in checkpoint.names(run)]:
            advice = f"rerun with {lower} and --resume-from STEP; steps with a checkpoint: {', '.join(steps)}"
        else:
            advice = f"train in a new --run folder with {lower}; there is no checkpoint yet"
        raise UserError(
            f"{what} after step {self._first_step + bad} (clips of this worker: {', '.join(self._keys[bad])}): {advice}"
        )

    def _use_counts(self) -> torch.Tensor:
        """Return how often this worker used each position of the window's steps; the last number is that of all
        positions of different steps. float64."""
        first, end = self._first_step * self._batch_size, self._next_step * self._batch_size
        offsets = torch.tensor(self._positions, dtype=torch.int64) - first
        offsets[(offsets < 0) | (offsets >= end - first)] = end - first
        return torch.bincount(offsets, minlength=end - first + 1).double()

    def _check_positions(self, use_counts: torch.Tensor, skipped: float) -> None:
        """Raise RuntimeError if a clip was not used exactly once.

        use_counts: of all workers. skipped: clips left out so far, in this window or in batches that were read ahead.
        """
        counts = use_counts[:-1]
        wrong = (counts > 1) | (counts < 1) & (skipped == 0)
        missing = int((counts < 1).sum())
        if use_counts[-1] or wrong.any() or missing > skipped:
            first, end = self._first_step * self._batch_size, self._next_step * self._batch_size
            raise RuntimeError(
                f"clips {first} to {end - 1} were not each used exactly once ({missing} not used, "
                f"{int((counts > 1).sum())} used more than once, {int(use_counts[-1])} of different steps)"
            )


class MetricsLog:
    """metrics.jsonl and TensorBoard, written by rank 0: directly into the run folder, or, for a run in an object store,
    to a local folder that is uploaded from time to time.

    A run that resumes from a checkpoint repeats some steps: after a line with `resumed`, the earlier lines of later
    steps do not count."""

    def __init__(self, run: Run, step: int):
        from torch.utils.tensorboard import SummaryWriter  # here, because only rank 0 needs it

        self._storage = run.storage
        self._storage.check_lock()
        self._folder = Path(run.storage.path() if run.storage.local else tempfile.mkdtemp(prefix="lgd-metrics-"))
        if not run.storage.local and run.storage.exists(METRICS):
            (self._folder / METRICS).write_bytes(run.storage.read(METRICS))
        check_file(str(self._folder / METRICS), run.storage.display(METRICS))
        self._file = open(self._folder / METRICS, "a", buffering=1, encoding="utf-8")  # noqa: SIM115 (closed in close)
        self._board = SummaryWriter(str(self._folder / "tensorboard"), purge_step=step)
        self._uploaded = time.monotonic()
        if self._file.tell():
            with open(self._folder / METRICS, "rb") as written:
                written.seek(-1, os.SEEK_END)
                if written.read() != b"\n":
                    self._file.write("\n")  # ends the line that a killed process did not complete
        if step or self._file.tell():
            self._file.write(json.dumps({"step": step, "resumed": True}) + "\n")

    def say(self, text: str) -> None:
        """Write a line that the driver prints."""
        self._append({"step": 0, "say": text})

    def write(self, line: dict[str, Any]) -> None:
        """Write metrics, with their "step". Raises LockLost if another command has taken over the run."""
        self._append({**line, "time": round(time.time(), 3)})
        for name, value in line.items():
            if name != "step" and not isinstance(value, list):
                self._board.add_scalar(name, value, line["step"])
        self._board.flush()
        if not self._storage.local and time.monotonic() - self._uploaded > UPLOAD_EVERY_S:
            self.flush()

    def _append(self, line: dict[str, Any]) -> None:
        if self._storage.local:  # otherwise it is checked before an upload
            self._storage.check_lock()
        self._file.write(json.dumps(line) + "\n")

    def flush(self) -> None:
        """Store all lines so far where they survive this process. Needed before a checkpoint: a run that resumes from
        it does not write the lines before it again."""
        if self._storage.local:
            return  # every line is written at once
        for path in self._folder.rglob("*"):
            if path.is_file():
                self._storage.write(path.relative_to(self._folder).as_posix(), path.read_bytes())
        self._uploaded = time.monotonic()

    def close(self) -> None:
        """Close the files and upload them."""
        self._file.close()
        self._board.close()
        self.flush()
        if not self._storage.local:
            shutil.rmtree(self._folder)
