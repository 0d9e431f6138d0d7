"""The chain of a two-stream result: train each stream by its recipes in turn, evaluate, fuse, report; done by the
verbs."""

from pathlib import Path
from typing import Any

from rich.table import Table

from lgd.pipeline.console.command_line import CommandSequence
from lgd.training.scoring.metrics import accuracy_table

REPORT = "report.html"


def two_streams(
    walk: CommandSequence, chain: tuple[str, ...], data: object, *, out: Path, split: str, epochs: float | None
) -> dict[str, Any]:
    """Trains, scores, fuses, and writes REPORT; metrics of rgb, flow and fused. What is done is left as it is."""
    files, runs = {}, []
    for stream in ("rgb", "flow"):
        more: list[object] = []
        for recipe in (each.format(stream=stream) for each in chain):
            run_folder = out / recipe
            runs.append(run_folder)
            fewer = [] if epochs is None else ["--epochs", epochs]
            walk.do(f"train {recipe}", "train", recipe, "--data", data, "--run", run_folder, *fewer, *more)
            more = ["--init-from", run_folder]
        files[stream] = out / f"{stream}-{split}.parquet"
        words = ("--data", data, "--split", split, "--out", files[stream])
        walk.do(f"evaluate {stream}", "evaluate", run_folder, *words)
    together = out / f"fused-{split}.parquet"
    fused = walk.do("fuse", "fuse", *files.values(), "--out", together)
    walk.do("report", "report", out / REPORT, *runs, *files.values(), together, "--data", data)
    alone = {stream: fused["inputs"][str(file)] for stream, file in files.items()}
    return {**alone, "fused": fused["fused"]}


def walk_report(walk: CommandSequence, rows: dict[str, Any], out: Path) -> list[Any]:
    stages = Table("stage", "seconds")
    for stage, spent in walk.seconds.items():
        stages.add_row(stage, f"{spent:.1f}")
    stages.add_row("together", f"{sum(walk.seconds.values()):.1f}")
    return ["", accuracy_table(rows), stages, f"everything is in {out}; for a browser: {out / REPORT}"]
