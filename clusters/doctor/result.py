"""The result of `lgd doctor`, and the table that it prints: equal rows of nodes are one row."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from lgd.clusters.doctor.rows import ABSENT, CLUSTER, GPU, NODE, OK, SLOW, WARNING, WRONG, Row, number
from lgd.pipeline.console.command_line import CommandResult, Line

STYLES = {OK: "green", SLOW: "yellow", WARNING: "yellow", WRONG: "bold red", ABSENT: "dim"}
NAMED, FIGURES = 3, 3  # maximum number of nodes named in a row, and of rows of one check that are only different
WIDE = 0.8  # a range whose ends differ by more names its lowest node


@dataclass(frozen=True)
class DoctorNode:
    """A node of the cluster."""

    name: str
    """Host name; with the start of the id if several nodes have the same host name."""
    id: str
    """Ray's id of the node."""
    address: str
    """IP address."""
    cpus: float
    """CPUs that Ray offers there."""
    gpus: int
    """GPUs that Ray offers there."""
    clock_ahead_s: float | None
    """How far its clock is ahead of that of the machine on which the command runs, seconds; null if it does not
    respond."""


@dataclass(frozen=True)
class DoctorRow:
    """One check of a node or of the cluster."""

    section: str
    """Section of the table: cluster, node or GPU."""
    node: str | None
    """Name of the node; null for a check of the whole cluster."""
    name: str
    """Name of the check."""
    figure: str
    """What was found, for people."""
    verdict: str
    """ok, slow, warning, wrong, or "not available" if the check does not apply or could not be made."""
    advice: str
    """What to do; empty if nothing."""
    value: float | None
    """The figure as a number, in `unit`; null if it is not one."""
    unit: str
    """Unit of the value; empty if it has none."""

    @staticmethod
    def of(row: Row, node: str | None) -> "DoctorRow":
        """Return a row with the node that it belongs to."""
        return DoctorRow(row.section, node, row.name, row.figure, row.verdict, row.advice, row.value, row.unit)


@dataclass(frozen=True)
class DoctorResult(CommandResult):
    """Result of `lgd doctor`. The exit code is 1 if the verdict of a row is wrong."""

    nodes: tuple[DoctorNode, ...]
    """The nodes that are alive."""
    rows: tuple[DoctorRow, ...]
    """The checks: first those of the cluster, then those of each node."""
    seconds: float
    """Duration of the command, seconds."""

    def lines(self) -> list[Line]:
        counts = [sum(row.verdict == verdict for row in self.rows) for verdict in STYLES]
        words = [f"{count} {verdict}" for count, verdict in zip(counts, STYLES, strict=True) if count]
        nodes = f"{len(self.nodes)} node{'s' if len(self.nodes) != 1 else ''}"
        return [self._table(), f"{nodes} checked in {self.seconds:.0f} s: {', '.join(words)}"]

    @property
    def failed(self) -> str:
        wrong = [row for row in self.rows if row.verdict == WRONG]
        if not wrong:
            return ""
        names = list(dict.fromkeys(f"{row.name} on {row.node}" if row.node else row.name for row in wrong))
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        return f"wrong: {', '.join(names[:NAMED])}{more}; the table says what to do"

    def _table(self) -> Table:
        several = len(self.nodes) > 1
        table = Table("check", *(["nodes"] if several else []), "verdict", "figure and what to do", box=None)
        table.columns[0].no_wrap = True
        table.columns[-2].width = max(map(len, (OK, SLOW, WARNING, WRONG, "available")))  # "not available": two lines
        table.padding = (0, 1)
        for section in (CLUSTER, NODE, GPU):
            rows = [row for row in self.rows if row.section == section]
            if rows:
                table.add_row(Text(section, style="bold"))
            for name in dict.fromkeys(row.name for row in rows):
                for group in merge([row for row in rows if row.name == name]):
                    figure = Text(group.figure)
                    if group.advice:
                        figure.append(f"\n-> {group.advice}", style=STYLES[group.verdict])
                    where = [] if not several else [describe_nodes(group.nodes, len(self.nodes))]
                    table.add_row(f"  {name}", *where, Text(group.verdict, style=STYLES[group.verdict]), figure)
        return table


@dataclass(frozen=True)
class MergedRow:
    """Rows of one check with the same verdict on several nodes. nodes: their names; none for the cluster."""

    nodes: tuple[str, ...]
    figure: str
    verdict: str
    advice: str


def merge(rows: Sequence[DoctorRow]) -> list[MergedRow]:
    """Merge the rows of one check: those with the same verdict, advice and figure. Figures that are numbers become a
    range. The largest group is first."""
    groups: dict[tuple[str, ...], list[DoctorRow]] = {}
    for row in rows:
        figure = "" if row.unit else row.figure
        groups.setdefault((row.verdict, row.advice, row.unit, figure), []).append(row)
    merged = [
        MergedRow(tuple(each.node for each in group if each.node), _figure(group), group[0].verdict, group[0].advice)
        for group in sorted(groups.values(), key=len, reverse=True)
    ]
    return _shortened(merged)


def _figure(group: Sequence[DoctorRow]) -> str:
    """The figure of one node, or the range of several."""
    values = [row.value for row in group if row.value is not None]
    if len({row.figure for row in group}) == 1 or not values:
        return group[0].figure
    least = min(group, key=lambda row: row.value or 0)
    low, high = min(values), max(values)
    wide = f" (lowest: {least.node})" if low < WIDE * high and len(group) > 2 else ""
    return f"{number(low)} to {number(high)} {least.unit}{wide}"


def _shortened(merged: list[MergedRow]) -> list[MergedRow]:
    """Join groups of which only the figure is different, if there are many."""
    result: list[MergedRow] = []
    for verdict, advice in dict.fromkeys((each.verdict, each.advice) for each in merged):
        alike = [each for each in merged if (each.verdict, each.advice) == (verdict, advice)]
        if len(alike) <= FIGURES:
            result += alike
            continue
        nodes = tuple(name for each in alike for name in each.nodes)
        figure = f"{alike[0].figure}; {len(alike) - 1} other figures are in --json"
        result.append(MergedRow(nodes, figure, verdict, advice))
    return result


def describe_nodes(names: Sequence[str], nodes: int) -> str:
    """Return the nodes of a row in a few words. nodes: of the cluster."""
    if not names:
        return ""
    if len(names) == nodes:
        return f"all {nodes}"
    if len(names) <= NAMED:
        return "\n".join(names)
    if 2 * len(names) > nodes:
        return f"{len(names)} others"
    return "\n".join([*names[: NAMED - 1], f"{len(names) - NAMED + 1} more"])
