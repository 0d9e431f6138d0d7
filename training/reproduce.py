"""`lgd reproduce` and `lgd demo`: train both streams with a chain of recipes, evaluate, fuse and write a report, using
the commands that a user would enter."""

from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from lgd.pipeline.console.command_line import CommandResult, CommandSequence, Line
from lgd.training.scoring.metrics import Metrics, accuracy_table

REPORT = "report.html"


@dataclass(frozen=True)
class ReproduceResult(CommandResult):
    """Result of `lgd reproduce` and `lgd demo`. Metrics are null (None) if no video of the split has a label."""

    rgb: Metrics | None
    """Metrics of the RGB stream."""
    flow: Metrics | None
    """Metrics of the flow stream."""
    fused: Metrics | None
    """Metrics of both streams, fused with equal weights."""
    seconds: dict[str, float]
    """Duration of each stage, seconds."""
    out: str
    """Folder of runs, scores and report."""
    report: str
    """File of the report."""

    def lines(self) -> list[Line]:
        stages = Table("stage", "seconds")
        for stage, seconds in self.seconds.items():
            stages.add_row(stage, f"{seconds:.1f}")
        stages.add_row("total", f"{sum(self.seconds.values()):.1f}")
        inputs = {"rgb": self.rgb, "flow": self.flow, "fused": self.fused}
        labeled = {name: metrics for name, metrics in inputs.items() if metrics is not None}
        accuracies: list[Line] = [accuracy_table(labeled)] if labeled else []
        return ["", *accuracies, stages, f"everything is in {self.out}; report for a browser: {self.report}"]


def run_chain(
    sequence: CommandSequence,
    chain: tuple[str, ...],
    data: object,
    *,
    out: Path,
    split: str,
    epochs: float | None,
) -> ReproduceResult:
    """Train and evaluate each stream, fuse the scores and write the report. Stages that are complete are not repeated.

    chain: recipes in order, with `{stream}` for the stream. data: folder of the dataset. out: folder of the results.
    split: that is scored. epochs: instead of those of the recipes."""
    score_files, run_folders = {}, []
    for stream in ("rgb", "flow"):
        init_from: list[object] = []
        for recipe in (template.format(stream=stream) for template in chain):
            run_folder = out / recipe
            run_folders.append(run_folder)
            options = [*([] if epochs is None else ["--epochs", epochs]), *init_from]
            sequence.do(f"train {recipe}", "train", recipe, "--data", data, "--run", run_folder, *options)
            init_from = ["--init-from", run_folder]
        score_files[stream] = out / f"{stream}-{split}.parquet"
        options = ["--data", data, "--split", split, "--out", score_files[stream]]
        sequence.do(f"evaluate {stream}", "evaluate", run_folder, *options)
    fused_file = out / f"fused-{split}.parquet"
    fusion = sequence.do("fuse", "fuse", *score_files.values(), "--out", fused_file)
    report = out / REPORT
    sequence.do("report", "report", report, *run_folders, *score_files.values(), fused_file, "--data", data)
    rgb, flow = (fusion["inputs"][str(file)] for file in score_files.values())
    return ReproduceResult(rgb, flow, fusion["fused"], sequence.seconds, str(out), str(report))
