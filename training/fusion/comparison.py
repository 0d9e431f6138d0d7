"""What a fusion changed: metrics of every input and of the fusion, videos fixed and broken, agreement, oracle."""

from typing import Any

import numpy as np
from rich.table import Table

from lgd.training.fusion.fuse import metrics
from lgd.training.fusion.fuse_files import Fusion
from lgd.training.fusion.join import unlabelled
from lgd.training.scoring.class_table import class_rows
from lgd.training.scoring.metrics import accuracy_table
from lgd.training.scoring.scores import named

NEEDS_LABELS = ("equal", "fixed", "broken", "p_value", "compared_to", "oracle_top1", "per_class")


def comparison(fusion: Fusion) -> dict[str, Any]:
    """The document of `lgd fuse`.

    inputs, fused, equal: metrics (`lgd.training.scoring.metrics.summary`); equal is None where `fused` has equal weights. fit:
    metrics on the fitting videos, if any, by equal weights and as fitted. changes: of each input, videos that it has
    wrong and the fusion right (fixed), the other way round (broken), and the p-value of McNemar's test; fixed, broken
    and p_value beside `compared_to`, the input of the best top-1 (the first of equals). agreement: fraction of videos
    for which all inputs predict the same class; agreements: of each pair. oracle_top1: fraction that at least one
    input has right. per_class: what `class_rows` says of the fusion. With unlabelled videos, whatever needs labels is
    None."""
    joined, fused = fusion.joined, fusion.fused
    names = [each.name for each in joined.inputs]
    predicted = [each.probabilities.argmax(axis=1) for each in joined.inputs]
    agreements = [[float((a == b).mean()) for b in predicted] for a in predicted]
    document: dict[str, Any] = {
        "split": fused.split,
        "videos": len(fused.keys),
        "unlabelled": len(unlabelled(fused)),
        **{field: fused.about[field] for field in ("space", "weights", "temperatures", "fitted_on", "dropped")},
        "fit": fusion.fit,
        "agreement": float(np.all([each == predicted[0] for each in predicted], axis=0).mean()),
        "agreements": agreements,
    }
    if document["unlabelled"]:
        nothing = {"inputs": dict.fromkeys(names), "fused": None, "changes": dict.fromkeys(names)}
        return {**nothing, **document, **dict.fromkeys(NEEDS_LABELS)}
    right = [each == fused.labels for each in predicted]
    right_fused = fused.probabilities.argmax(axis=1) == fused.labels
    changes = {name: _change(before, right_fused) for name, before in zip(names, right, strict=True)}
    numbers = {each.name: metrics(each) for each in joined.inputs}
    best = max(names, key=lambda name: numbers[name]["top1"])
    return {
        "inputs": numbers,
        "fused": metrics(fused),
        "equal": None if fusion.equal is None else metrics(fusion.equal),
        **document,
        "changes": changes,
        "compared_to": best,
        **changes[best],
        "oracle_top1": float(np.any(right, axis=0).mean()),
        "per_class": class_rows(fused),
    }


def mcnemar(fixed: int, broken: int) -> float:
    """Two-sided p-value of the exact test: how often a fair coin falls at least as unevenly (McNemar, Psychometrika 12,
    1947, with the binomial distribution in the place of the normal one)."""
    tosses, fewer = fixed + broken, min(fixed, broken)
    ways, total = 1, 0
    for heads in range(fewer + 1):
        total += ways
        ways = ways * (tosses - heads) // (heads + 1)
    return min(1.0, 2 * total / 2**tosses)


def report(document: dict[str, Any], fusion: Fusion) -> list[Any]:
    """Lines and tables for a person, of a fusion and its `comparison`."""
    lines: list[Any] = []
    if any(document["dropped"].values()):
        lost = ", ".join(f"{name} {count}" for name, count in document["dropped"].items())
        lines.append(f"{document['videos']} videos are common to all; dropped: {lost}")
    if document["fit"]:
        lines += _fit_lines(document)
    labelled = document["fused"] is not None
    if labelled:
        equal = {"equal weights": document["equal"]} if document["equal"] else {}
        lines.append(accuracy_table({**document["inputs"], **equal, "fused": document["fused"]}))
    else:
        keys = unlabelled(fusion.fused)
        lines.append(f"{len(keys)} of {document['videos']} videos have no label ({named(keys)}): no accuracies")
    lines.append(_inputs_table(document))
    agree = f"the inputs agree on {document['agreement']:.1%} of the videos"
    if labelled:
        agree += f"; at least one is right on {document['oracle_top1']:.1%} (oracle)"
        lines.append(
            f"beside {document['compared_to']}, the best alone, fusion fixed {document['fixed']} videos and broke "
            f"{document['broken']} (McNemar's exact p = {document['p_value']:.3g})"
        )
    return [*lines, agree]


def _fit_lines(document: dict[str, Any]) -> list[str]:
    split, videos = (document["fitted_on"][0][field] for field in ("split", "videos"))
    equal, fitted = (document["fit"][rule]["nll"] for rule in ("equal", "fitted"))
    lines = [
        f"weights and temperatures are fitted on {videos} videos of the split {split} (negative log likelihood "
        f"{equal:.3f} with equal weights, {fitted:.3f} fitted); reported on {document['videos']} others of the split "
        f"{document['split']}"
    ]
    if split == "train":
        lines.append("note: networks know the videos that they were trained on too well for a fit on them to hold")
    return lines


def _change(before: np.ndarray, after: np.ndarray) -> dict[str, Any]:
    fixed, broken = int((~before & after).sum()), int((before & ~after).sum())
    return {"fixed": fixed, "broken": broken, "p_value": mcnemar(fixed, broken)}


def _inputs_table(document: dict[str, Any]) -> Table:
    table = Table("input", "weight", "temperature", "fixed", "broken")
    rows = zip(document["changes"].items(), document["weights"], document["temperatures"], strict=True)
    for (name, change), weight, temperature in rows:
        counts = [str(change[field]) if change else "-" for field in ("fixed", "broken")]
        table.add_row(name, f"{weight:.3f}", f"{temperature:.3f}", *counts)
    return table
