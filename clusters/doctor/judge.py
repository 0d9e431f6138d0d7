"""Verdicts that need more than one node: the clocks, the CPUs per GPU, and nodes that are slower than the others."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from lgd.clusters.doctor import advice
from lgd.clusters.doctor.nodes import Member
from lgd.clusters.doctor.rows import CLUSTER, OK, SLOW, WARNING, Row

SPEEDS = ("B/s", "frames/s", "TFLOP/s")  # ends of the units of which more is better
OUTLIER = 0.5  # of the median of the nodes
MAX_CLOCK_DIFFERENCE_S = 1.0
LEAST_CPUS_PER_GPU = 4


def nodes_row(members: Sequence[Member], lost: int) -> Row:
    """The number of nodes, CPUs and GPUs. lost: nodes that the cluster had before."""
    cpus, gpus = sum(member.cpus for member in members), sum(member.gpus for member in members)
    figure = f"{len(members)}, for Ray with {_count(cpus, 'CPU')} and {_count(gpus, 'GPU')}" + (
        f"; {lost} lost before" if lost else ""
    )
    return Row(CLUSTER, "nodes", figure)


def _count(number: float, what: str) -> str:
    return f"{number:g} {what}{'s' if number != 1 else ''}"


def clock_row(offsets: Mapping[str, tuple[float, float]]) -> Row:
    """The largest difference of two clocks. offsets: by node, how far ahead its clock is, and the uncertainty, s."""
    if not offsets:
        return Row(CLUSTER, "clocks", "no node responds", WARNING, advice.NO_ANSWER)
    uncertain = max(error for _, error in offsets.values())
    ahead = {name: offset for name, (offset, _) in offsets.items()}
    middle = statistics.median_low(ahead.values())
    # Nodes of which it is certain that they differ by more.
    far = [name for name, (offset, error) in offsets.items() if abs(offset - middle) - error > MAX_CLOCK_DIFFERENCE_S]
    if not far:
        gap = max(ahead.values()) - min(ahead.values())
        own = max(map(abs, ahead.values()))
        figure = f"differ by at most {max(gap, own) * 1e3:.1f} ms (measured to ± {uncertain * 1e3:.1f} ms)"
        verdict = OK if max(gap, own) - uncertain <= MAX_CLOCK_DIFFERENCE_S else WARNING
        return Row(CLUSTER, "clocks", figure, verdict, "" if verdict == OK else advice.CLOCK)
    worst = max(far, key=lambda name: abs(ahead[name] - middle))
    side = "ahead of" if ahead[worst] > middle else "behind"
    figure = f"{worst} is {abs(ahead[worst] - middle):.1f} s {side} the others"
    if len(far) > 1:
        figure += f", and {len(far) - 1} more differ by over {MAX_CLOCK_DIFFERENCE_S:g} s"
    return Row(CLUSTER, "clocks", figure, WARNING, advice.CLOCK)


def cpus_per_gpu_row(members: Sequence[Member]) -> list[Row]:
    """The CPUs that Ray offers per GPU, on the nodes with GPUs; no row without any."""
    shares = {member.name: member.cpus / member.gpus for member in members if member.gpus}
    if not shares:
        return []
    least = min(shares, key=lambda name: shares[name])
    if len(set(shares.values())) > 1:
        figure = f"{shares[least]:g} on {least}, up to {max(shares.values()):g} on other nodes"
    else:
        figure = f"{shares[least]:g}"
    if shares[least] < LEAST_CPUS_PER_GPU:
        return [Row(CLUSTER, "CPUs per GPU", figure, WARNING, advice.CPUS_PER_GPU)]
    if len(set(shares.values())) > 1:
        return [Row(CLUSTER, "CPUs per GPU", figure, WARNING, advice.CPUS_UNEQUAL)]
    return [Row(CLUSTER, "CPUs per GPU", figure)]


def with_outliers(rows: Mapping[Any, list[Row]]) -> None:
    """Change the verdict of speeds that are less than half of the median of the nodes from ok to slow."""
    measured: dict[tuple[str, str], list[float]] = {}
    for each in rows.values():
        for row in each:
            if row.value is not None and row.unit.endswith(SPEEDS):
                measured.setdefault((row.section, row.name), []).append(row.value)
    for each in rows.values():
        for place, row in enumerate(each):
            values = measured.get((row.section, row.name), [])
            if row.verdict != OK or row.value is None or not values:
                continue
            median = statistics.median_high(values)
            if row.value < OUTLIER * median:
                figure = f"{row.figure}; the median of the nodes is {median:,.3g}"
                each[place] = row._replace(figure=figure, verdict=SLOW, advice=advice.SLOWER)
