"""Check the cluster that this process is connected to, and every node of it: the command `lgd doctor`."""

import hashlib
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from lgd import __version__
from lgd.clusters.doctor import advice
from lgd.clusters.doctor.child import MAX_LOAD_FACTOR, Group, run_groups, run_together
from lgd.clusters.doctor.collective import COLLECTIVE_S, CONNECT_S, free_port, sum_rows
from lgd.clusters.doctor.compute import cpu_rows
from lgd.clusters.doctor.decoding import decoding_rows
from lgd.clusters.doctor.gpu import USABLE, gpu_rows
from lgd.clusters.doctor.judge import clock_row, cpus_per_gpu_row, nodes_row, with_outliers
from lgd.clusters.doctor.machine import machine_rows
from lgd.clusters.doctor.nodes import Failure, Member, call_on, find_members, packed
from lgd.clusters.doctor.options import DoctorOptions
from lgd.clusters.doctor.reading import reading_rows
from lgd.clusters.doctor.result import DoctorNode, DoctorResult, DoctorRow
from lgd.clusters.doctor.rows import ABSENT, CLUSTER, GPU, NODE, WRONG, Row
from lgd.clusters.doctor.versions import clock, introduce, version_rows
from lgd.pipeline.console.errors import UserError
from lgd.pipeline.console.progress import Progress
from lgd.pipeline.storage.storage import Storage

DESCRIPTION = "dataset.json"
ANSWER_S, CLOCK_S = 45.0, 10.0  # for a node to start a worker of Ray; for a call after that
CLOCK_CALLS = 5
EXTRA_S = 15.0  # for a node, beyond the time limits of its groups
SUM_S = CONNECT_S + COLLECTIVE_S + 10.0  # with the import of PyTorch
MAX_SHARDS = 64  # of a dataset that are read
STEPS = 4  # of the progress: per node, introduction, clock, checks and sums


class Data(NamedTuple):
    """The dataset to read. digest: SHA-256 of dataset.json. shards: path and bytes of at most MAX_SHARDS."""

    address: str
    digest: str
    shards: tuple[tuple[str, int], ...]


def examine(options: DoctorOptions, start_cluster: Callable[[], None]) -> DoctorResult:
    """Check the cluster and return the rows. start_cluster: connects this process to Ray.

    Raises UserError if the cluster cannot be joined, or if `options.data` is not a dataset."""
    started = time.monotonic()
    data = open_data(options.data) if options.data is not None else None
    start_cluster()
    members, lost = find_members()
    with Progress("doctor", STEPS * len(members), "steps") as progress:

        def step(number: int) -> Callable[[int], None]:
            return lambda done: progress.update(number * len(members) + done)

        introductions = call_on(dict.fromkeys(members, ()), introduce, limit_s=ANSWER_S, update=step(0))
        present = [member for member in members if not isinstance(introductions[member], Failure)]
        offsets = clock_offsets(present)
        step(2)(0)
        rows: dict[Member, list[Row]] = {member: [] for member in members}
        expected = introduce() | {"lgd": __version__}
        for member in members:
            found = introductions[member]
            if isinstance(found, Failure):
                rows[member] = [Row(NODE, "node", f"does not respond: {found.reason}", WRONG, advice.NO_ANSWER)]
            else:
                rows[member] = version_rows(found, expected)
        check_nodes(rows, present, data, update=step(2))
        cluster = [
            nodes_row(members, lost),
            clock_row({member.name: offset for member, offset in offsets.items()}),
            *cpus_per_gpu_row(members),
            *sums_between(rows, present),
        ]
    with_outliers(rows)
    return DoctorResult(
        nodes=tuple(
            DoctorNode(each.name, each.id, each.address, each.cpus, each.gpus, offsets.get(each, (None, None))[0])
            for each in members
        ),
        rows=tuple(
            [DoctorRow.of(row, None) for row in cluster]
            + [DoctorRow.of(row, each.name) for each in members for row in rows[each]]
        ),
        seconds=round(time.monotonic() - started, 1),
    )


def open_data(path: str) -> Data:
    """Return what the nodes need to read a dataset. Raises UserError if the folder is not a dataset."""
    storage = Storage(path)
    if not storage.exists(DESCRIPTION):
        raise UserError(f"{storage.display()} is not a dataset ({DESCRIPTION} is missing): check --data")
    names = [name for name in storage.list_all() if name.endswith(".tar") and name.count("/") == 1]
    chosen = names[:: -(-len(names) // MAX_SHARDS) or 1]  # a request each in an object store
    shards = tuple((name, size) for name in chosen if (size := storage.size(name)))
    return Data(storage.address, hashlib.sha256(storage.read(DESCRIPTION)).hexdigest(), shards)


def clock_offsets(members: Sequence[Member]) -> dict[Member, tuple[float, float]]:
    """Return how far the clock of each node is ahead of this machine's, and the uncertainty, in seconds.

    The node reads its clock between the call and the answer: half of their distance is the uncertainty. The quickest
    of several calls counts."""
    found = {}
    for member in members:
        calls = []
        for _ in range(CLOCK_CALLS):
            before = time.time()
            answer = call_on({member: ()}, clock, limit_s=CLOCK_S)[member]
            after = time.time()
            if isinstance(answer, Failure):
                break
            calls.append((after - before, answer - (before + after) / 2))
        if calls:
            round_trip, offset = min(calls)
            found[member] = (offset, round_trip / 2)
    return found


def check_nodes(
    rows: dict[Member, list[Row]], members: Sequence[Member], data: Data | None, *, update: Callable[[int], None]
) -> None:
    """Add the rows of each node: one task per node, all at the same time."""
    several = len({member.address for member in members}) > 1
    arguments = {member: (groups_of(member, number, data, several=several),) for number, member in enumerate(members)}
    limits = [sum(group.limit_s for group in groups) for (groups,) in arguments.values()]
    limit_s = max(limits, default=0) * MAX_LOAD_FACTOR + EXTRA_S
    for member, found in call_on(arguments, run_groups, limit_s=limit_s, update=update).items():
        if isinstance(found, Failure):
            rows[member].append(Row(NODE, "checks", found.reason, WRONG, advice.CRASHED))
        else:
            rows[member] += [Row(*each) for each in found]
    sums_within(rows, members)


def groups_of(member: Member, number: int, data: Data | None, *, several: bool) -> list[Group]:
    """Return the checks of a node. number: of the node."""
    groups = [
        Group(NODE, "machine", packed(machine_rows, ray_cpus=member.cpus, several=several), 20),
        Group(NODE, "CPU", packed(cpu_rows), 40),
        Group(NODE, "JPEGs, CPU", packed(decoding_rows, gpus=False), 40),
        Group(GPU, "GPU", packed(gpu_rows, ray_gpus=member.gpus), 90),
    ]
    if member.gpus:
        groups.append(Group(GPU, "JPEGs", packed(decoding_rows, gpus=True), 60))
    if data:
        reading = packed(reading_rows, address=data.address, digest=data.digest, shards=data.shards, first=number)
        groups.append(Group(NODE, "data", reading, 40))
    return groups


def usable_gpus(rows: Sequence[Row]) -> int:
    """Return the number of GPUs of a node that PyTorch can use."""
    return int(next((row.value or 0 for row in rows if row.name == USABLE), 0))


def sums_within(rows: dict[Member, list[Row]], members: Sequence[Member]) -> None:
    """Add the speed of sums over processes of one node: over its GPUs if it has several, otherwise over two
    processes."""
    arguments = {}
    for member, port in ports(members).items():
        gpus = usable_gpus(rows[member])
        if gpus == 1 or isinstance(port, Failure):
            continue
        backend, processes = ("nccl", gpus) if gpus else ("gloo", 2)
        arguments[member] = (
            [
                _sum_group(
                    f"{backend} within the node",
                    backend,
                    rank=rank,
                    processes=processes,
                    host=member.address,
                    port=port,
                )
                for rank in range(processes)
            ],
        )
    for member, found in call_on(arguments, run_together, limit_s=SUM_S * MAX_LOAD_FACTOR + EXTRA_S).items():
        if isinstance(found, Failure):
            rows[member].append(Row(NODE, "sums within the node", found.reason, WRONG, advice.CRASHED))
        else:
            rows[member] += _first_of_each([Row(*row) for each in found for row in each])


def sums_between(rows: dict[Member, list[Row]], members: Sequence[Member]) -> list[Row]:
    """Return the speed of sums over the nodes: gloo over all of them, NCCL over one GPU of each that has one. Add rows
    to nodes that cannot take part."""
    if len(members) < 2:
        return [Row(CLUSTER, "sums between nodes", "the cluster has one node", ABSENT)]
    cluster = []
    with_gpu = [member for member in members if usable_gpus(rows[member])]
    for backend, group in (("gloo", members), ("nccl", with_gpu)):
        if len(group) < 2:
            continue
        name, first = f"{backend} between nodes", group[0]
        port = ports([first])[first]
        if isinstance(port, Failure):
            cluster.append(Row(CLUSTER, name, port.reason, WRONG, advice.NETWORK))
            continue
        arguments = {
            member: ([_sum_group(name, backend, rank=rank, processes=len(group), host=first.address, port=port)],)
            for rank, member in enumerate(group)
        }
        for member, found in call_on(arguments, run_together, limit_s=SUM_S * MAX_LOAD_FACTOR + EXTRA_S).items():
            if isinstance(found, Failure):
                rows[member].append(Row(NODE, name, found.reason, WRONG, advice.NETWORK))
                continue
            for row in (Row(*values) for each in found for values in each):
                (cluster if row.section == CLUSTER else rows[member]).append(row)
    return cluster


def ports(members: Sequence[Member]) -> dict[Member, int | Failure]:
    """Return a free TCP port of each node, at its address in the cluster."""
    return call_on({member: (member.address,) for member in members}, free_port, limit_s=ANSWER_S)


def _sum_group(name: str, backend: str, *, rank: int, processes: int, host: str, port: int) -> Group:
    device = rank if "within" in name else 0
    check = packed(
        sum_rows, name=name, backend=backend, rank=rank, processes=processes, host=host, port=port, device=device
    )
    return Group(NODE, name, check, SUM_S)


def _first_of_each(rows: Sequence[Row]) -> list[Row]:
    """Return the rows without those of further processes of the same check that failed in the same way."""
    return list({(row.name, row.verdict): row for row in reversed(rows)}.values())
