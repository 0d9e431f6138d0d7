"""The history of a run, from the lines of its metrics."""

import json
from pathlib import Path

from lgd.pipeline.storage.storage import Storage
from lgd.training.report.history import history_of, read_history


def test_steps_that_a_resumed_run_repeated_count_once(tmp_path: Path):
    lines = [{"step": s, "epoch": s / 2, "loss": float(s), "step_s": 1.0, "workers": 2} for s in range(1, 11)]
    lines += [{"step": 10, "val_top1": 0.5}, {"step": 6, "resumed": True}]
    lines += [{"step": s, "epoch": s / 2, "loss": -float(s), "step_s": 1.0, "workers": 3} for s in range(7, 9)]
    history = history_of(lines)
    assert history.curves["loss"].value.tolist() == [1, 2, 3, 4, 5, 6, -7, -8]
    assert history.curves["loss"].epoch.tolist() == [s / 2 for s in range(1, 9)]
    assert "val_top1" not in history.curves
    assert (history.steps, history.seconds, history.workers, history.resumptions, history.repeated) == (
        8,
        8,
        (2, 3),
        1,
        4,
    )
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text + '{"step": 9, "lo')  # a line that is still being written
    assert read_history(Storage(tmp_path)).steps == 8
    (tmp_path / "metrics.jsonl").write_text(text + '{"step": 9, "lo\n')
    assert read_history(Storage(tmp_path)).steps == 8  # a damaged line is left out
