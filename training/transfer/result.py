"""What the results of several trainings have in common."""

from dataclasses import dataclass

from lgd.pipeline.console.command_line import CommandResult, Line
from lgd.training.transfer.accuracy import TITLES, SplitAccuracy


@dataclass(frozen=True, kw_only=True)
class TrainingsResult(CommandResult):
    """Result of a command that trains and scores on several splits or folds."""

    seconds: dict[str, float]
    """Duration of each stage, seconds."""
    out: str
    """Folder of runs, scores and report."""
    report: str
    """File of the report."""
    _failure: str = ""
    """For `failed`; not in the document."""

    def last_lines(
        self, kind: str, rows: dict[str, dict[str, SplitAccuracy]], weights: dict[str, list[float]] | None
    ) -> list[Line]:
        """Return the lines below the tables. kind: split or fold. rows: accuracies by its name and stream. weights:
        fitted ones, by its name."""
        return [
            *not_scored_lines({f"{kind} {name}": row for name, row in rows.items()}),
            *weight_lines({f"{kind} {name}": each for name, each in (weights or {}).items()}),
            f"{len(self.seconds)} stages took {sum(self.seconds.values()):.0f} s",
            f"everything is in {self.out}; report for a browser: {self.report}",
        ]

    def document(self) -> dict[str, object]:
        document: dict[str, object] = super().document()
        del document["_failure"]
        return document

    @property
    def failed(self) -> str:
        return self._failure


def not_scored_lines(splits: dict[str, dict[str, SplitAccuracy]]) -> list[Line]:
    """Return a line for each split with videos that were not scored. splits: accuracies by split and stream."""
    lines: list[Line] = []
    for name, row in splits.items():
        first = next(iter(row.values()))
        if first["not_scored"]:
            total = first["videos"] + first["not_scored"]
            counted = ", ".join(f"{TITLES[stream]} {each['top1_all']:.1%}" for stream, each in row.items())
            lines.append(
                f"{name}: {first['not_scored']} of {total} videos were not scored, because they are not in the shards; "
                f"top-1 with them counted as wrong: {counted}"
            )
    return lines


def weight_lines(weights: dict[str, list[float]]) -> list[Line]:
    """Return a line for the fitted weights of each split."""
    return [f"{name}: fitted weights {', '.join(f'{weight:.3f}' for weight in each)}" for name, each in weights.items()]
