"""`lgd fuse`: fuse score files and compare the result with the inputs: metrics, fixed and broken videos, agreement."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypedDict

import numpy as np
from rich.table import Table

from lgd.pipeline.console.command_line import CommandResult, Line
from lgd.pipeline.dataset.index_format import UNLABELLED
from lgd.training.fusion.fuse import FittedOn
from lgd.training.fusion.fuse_files import Fusion, fuse_files
from lgd.training.fusion.options import FusionOptions, Space
from lgd.training.scoring.class_table import ClassRow, check_output_files, class_rows, write_class_table
from lgd.training.scoring.metrics import Metrics, accuracy_table, scores_summary
from lgd.training.scoring.scores import shown_keys, unlabelled_keys, write_scores


class Change(TypedDict):
    """What fusion changed compared with one input."""

    fixed: int
    """Videos that only the fusion predicts correctly."""
    broken: int
    """Videos that only the input predicts correctly."""
    p_value: float
    """Of McNemar's exact test, two-sided."""


@dataclass(frozen=True)
class FuseResult(CommandResult):
    """Result of `lgd fuse`. What needs labels is computed from the videos that have one; if no video has a label, it is
    null (None)."""

    inputs: dict[str, Metrics | None]
    """Metrics of each input, by score file."""
    fused: Metrics | None
    """Metrics of the fused scores."""
    equal: Metrics | None
    """Metrics of the fusion with equal weights; null if `fused` has equal weights."""
    split: str
    """Split of the videos."""
    videos: int
    """Fused videos."""
    unlabelled: int
    """Videos without a label."""
    space: Space
    """What is averaged: probabilities or logits."""
    weights: list[float]
    """Weight of each input; their sum is 1."""
    temperatures: list[float]
    """Temperature of each input."""
    fitted_on: list[FittedOn] | None
    """Score files that weights and temperatures were fitted on; null if they were not fitted."""
    dropped: dict[str, int]
    """By score file, the number of its videos that are left out because another file lacks them."""
    fit: dict[str, Metrics] | None
    """Metrics on the fitting videos with equal weights ("equal") and fitted weights ("fitted"); null without a fit."""
    agreement: float
    """Fraction of the videos for which all inputs predict the same class."""
    agreements: list[list[float]]
    """Fraction of the videos for which two inputs predict the same class: one row and one column per input."""
    changes: dict[str, Change | None]
    """What fusion changed compared with each input, by score file."""
    compared_to: str | None
    """The input with the best top-1 (the first one of equals), which fixed, broken and p_value refer to."""
    fixed: int | None
    """Videos that the fusion predicts correctly and `compared_to` does not."""
    broken: int | None
    """Videos that `compared_to` predicts correctly and the fusion does not."""
    p_value: float | None
    """Of McNemar's exact test, two-sided."""
    oracle_top1: float | None
    """Fraction of the videos that at least one input predicts correctly."""
    per_class: list[ClassRow] | None
    """Accuracy and confusions of each class of the fused scores."""
    out: str | None
    """File of the fused scores, if one was written."""
    _unlabelled_keys: list[str] = field(default_factory=list, repr=False)
    """For `lines`; not in the document."""

    def document(self) -> dict[str, Any]:
        document = asdict(self)
        del document["_unlabelled_keys"]
        return document

    def lines(self) -> list[Line]:
        lines: list[Line] = []
        if any(self.dropped.values()):
            dropped = ", ".join(f"{name} {count}" for name, count in self.dropped.items())
            lines.append(f"the score files have {self.videos} videos in common; dropped: {dropped}")
        lines += self._fit_lines()
        agreement = f"the inputs agree on {self.agreement:.1%} of the videos"
        if self.unlabelled:
            what = "no accuracy" if self.fused is None else "accuracy of the labeled videos"
            keys = shown_keys(self._unlabelled_keys)
            lines.append(f"{what}: {self.unlabelled} of {self.videos} videos have no label ({keys})")
        if self.fused is None:
            return [*lines, self._inputs_table(), agreement]
        rows = {name: metrics for name, metrics in self.inputs.items() if metrics is not None}
        if self.equal is not None:
            rows["equal weights"] = self.equal
        lines += [
            accuracy_table({**rows, "fused": self.fused}),
            self._inputs_table(),
            f"compared with {self.compared_to}, the best single input, fusion fixed {self.fixed} videos and broke "
            f"{self.broken} (McNemar's exact test: p = {self.p_value:.3g})",
            f"{agreement}; at least one of them is right for {self.oracle_top1:.1%} (oracle)",
        ]
        return lines

    def _fit_lines(self) -> list[Line]:
        if self.fit is None or self.fitted_on is None:
            return []
        split, videos = self.fitted_on[0]["split"], self.fitted_on[0]["videos"]
        equal, fitted = self.fit["equal"]["nll"], self.fit["fitted"]["nll"]
        lines: list[Line] = [
            f"weights and temperatures were fitted on {videos} videos of the split {split} (negative log likelihood "
            f"{equal:.3f} with equal weights, {fitted:.3f} fitted); the results below are for the "
            f"{self.videos} videos of the split {self.split}"
        ]
        if split == "train":
            lines.append(
                "note: networks are too confident on the videos that they were trained on, so weights fitted on them "
                "can be poor on other videos; fit on a validation split instead"
            )
        return lines

    def _inputs_table(self) -> Table:
        table = Table("input", "weight", "temperature", "fixed", "broken")
        for (name, change), weight, temperature in zip(
            self.changes.items(), self.weights, self.temperatures, strict=True
        ):
            counts = ("-", "-") if change is None else (str(change["fixed"]), str(change["broken"]))
            table.add_row(name, f"{weight:.3f}", f"{temperature:.3f}", *counts)
        return table


def fuse_and_compare(
    files: Sequence[str],
    options: FusionOptions = FusionOptions(),
    *,
    out: str | None = None,
    per_class: str | None = None,
) -> FuseResult:
    """Fuse score files as `fuse_files` does and compare the result with them.

    out: Parquet file for the fused scores. per_class: Parquet file for the accuracy of each class and the confusion
    matrix. Raises UsageError and UserError as `fuse_files` does, for an output file that is also an input, and for
    `per_class` if no video has a label."""
    check_output_files({"--out": out, "--per-class": per_class}, [*files, *(options.fit or ())])
    fusion = fuse_files(files, options)
    if per_class:
        write_class_table(per_class, fusion.fused)
    if out:
        write_scores(out, fusion.fused)
    return compare(fusion, out)


def compare(fusion: Fusion, out: str | None = None) -> FuseResult:
    """Compare the fused scores with the inputs. out: the file of the fused scores, if there is one."""
    joined, fused = fusion.joined, fusion.fused
    names = [each.name for each in joined.inputs]
    predicted = [each.probabilities.argmax(axis=1) for each in joined.inputs]
    unlabelled = unlabelled_keys(fused)
    inputs: dict[str, Metrics | None] = dict.fromkeys(names)
    changes: dict[str, Change | None] = dict.fromkeys(names)
    best: str | None = None
    best_change: Change | None = None
    oracle: float | None = None
    has_labels = len(unlabelled) < len(fused.keys)
    if has_labels:
        labeled = fused.labels != UNLABELLED
        right = [(each == fused.labels)[labeled] for each in predicted]
        right_fused = (fused.probabilities.argmax(axis=1) == fused.labels)[labeled]
        metrics = {each.name: scores_summary(each) for each in joined.inputs}
        all_changes = {name: _change(before, right_fused) for name, before in zip(names, right, strict=True)}
        inputs, changes = {**metrics}, {**all_changes}
        best = max(names, key=lambda name: metrics[name]["top1"])
        best_change = all_changes[best]
        oracle = float(np.any(right, axis=0).mean())
    return FuseResult(
        inputs=inputs,
        fused=scores_summary(fused) if has_labels else None,
        equal=None if fusion.equal is None or not has_labels else scores_summary(fusion.equal),
        split=fused.split,
        videos=len(fused.keys),
        unlabelled=len(unlabelled),
        space=fused.metadata["space"],
        weights=fused.metadata["weights"],
        temperatures=fused.metadata["temperatures"],
        fitted_on=fused.metadata["fitted_on"],
        dropped=fused.metadata["dropped"],
        fit=fusion.fit,
        agreement=float(np.all([each == predicted[0] for each in predicted], axis=0).mean()),
        agreements=[[float((a == b).mean()) for b in predicted] for a in predicted],
        changes=changes,
        compared_to=best,
        fixed=best_change["fixed"] if best_change else None,
        broken=best_change["broken"] if best_change else None,
        p_value=best_change["p_value"] if best_change else None,
        oracle_top1=oracle,
        per_class=class_rows(fused) if has_labels else None,
        out=out,
        _unlabelled_keys=unlabelled,
    )


def mcnemar(fixed: int, broken: int) -> float:
    """Return the two-sided p-value of McNemar's exact test: the probability that a fair coin falls at least as unevenly
    as fixed to broken (McNemar, Psychometrika 12, 1947, with the binomial instead of the normal distribution)."""
    tosses, minority = fixed + broken, min(fixed, broken)
    ways, total = 1, 0
    for heads in range(minority + 1):
        total += ways
        ways = ways * (tosses - heads) // (heads + 1)
    return min(1.0, float(2 * total / 2**tosses))


def _change(before: np.ndarray, after: np.ndarray) -> Change:
    """Compare correct predictions, bool of each video, of an input (before) and of the fusion (after)."""
    fixed, broken = int((~before & after).sum()), int((before & ~after).sum())
    return {"fixed": fixed, "broken": broken, "p_value": mcnemar(fixed, broken)}
