"""How a worker computes its share of each global batch: in which parts, and with which normalization groups.

The global batch is cut into groups of consecutive positions for batch normalization, whichever workers hold them. A
group that is spread over workers is reduced among these, in a process group that is made once."""

from collections.abc import Iterator, Sequence

import torch
import torch.distributed as dist

from lgd.pipeline.loading.clip_order import rank_slice
from lgd.training.models.normalization import ClipGroups
from lgd.training.recipes import TrainConfig

Part = slice | list[int]  # clips of a worker's share


class StepGroups:
    """The parts of a worker's share of a global batch, and their normalization groups.

    Without normalization groups the parts have no groups: each is normalized as one."""

    def __init__(self, config: TrainConfig, rank: int, workers: int, *, device: torch.device) -> None:
        """Every worker must create it at the same time: the process groups are created together."""
        config.check_micro_batches()
        self._batch_size, self._group, self._device = config.batch_size, config.statistics_group, device
        self._micro_batch_size = config.micro_batch_size
        self._shared: dict[int, dist.ProcessGroup] = {}  # of this worker: group of the batch -> its workers
        self._order: dict[int, int] = {}  # of these: number among all groups that are spread over workers
        created: dict[tuple[int, ...], dist.ProcessGroup] = {}
        spread_groups = self._spread_groups(workers)
        self.spread = bool(spread_groups)  # whether workers share a group, the same on every worker
        for number, (group, ranks) in enumerate(spread_groups):
            if ranks not in created:
                created[ranks] = dist.new_group(list(ranks))
            if rank in ranks:
                self._shared[group], self._order[group] = created[ranks], number

    def _spread_groups(self, workers: int) -> list[tuple[int, tuple[int, ...]]]:
        """Return the groups that several workers hold, and the ranks of these workers."""
        if not self._group or workers == 1:
            return []
        shares = [rank_slice(0, self._batch_size, rank, workers=workers, group=self._group) for rank in range(workers)]
        holders: dict[int, set[int]] = {}
        for rank, share in enumerate(shares):
            for position in share:
                holders.setdefault(position // self._group, set()).add(rank)
        return [(group, tuple(sorted(ranks))) for group, ranks in sorted(holders.items()) if len(ranks) > 1]

    def parts(self, positions: Sequence[int]) -> Iterator[tuple[Part, ClipGroups | None]]:
        """Yield the parts of a share that are computed one after the other: its clips, and their groups.

        positions: of the clips of the share in the clip order, ascending; clips that were left out as damaged are
        missing. A part has at most a micro-batch of clips and holds all local clips of its groups."""
        size = self._micro_batch_size or len(positions)
        if not self._group:
            yield from ((slice(first, first + size), None) for first in range(0, len(positions), size))
            return
        clips_of: dict[int, list[int]] = {group: [] for group in self._shared}  # even if all its clips were left out
        for clip, position in enumerate(positions):
            clips_of.setdefault(position % self._batch_size // self._group, []).append(clip)
        part: list[int] = []
        for group in sorted(clips_of, key=self._rank_in_order):
            if part and sum(len(clips_of[g]) for g in part) + len(clips_of[group]) > size:
                yield self._part(part, clips_of)
                part = []
            part.append(group)
        yield self._part(part, clips_of)

    def _rank_in_order(self, group: int) -> tuple[int, int]:
        """Order groups so that workers that share a group do not wait for each other in a long chain.

        Shared groups come first: of all shared groups of the batch, every second one, then the others. Without
        micro-batches the order makes no difference."""
        if group not in self._order or self._micro_batch_size is None:
            return 2, group
        return self._order[group] % 2, group

    def _part(self, groups: Sequence[int], clips_of: dict[int, list[int]]) -> tuple[Part, ClipGroups]:
        groups = sorted(groups)
        clips = [clip for group in groups for clip in clips_of[group]]
        numbers = [number for number, group in enumerate(groups) for _ in clips_of[group]]
        shared = [(number, self._shared[group]) for number, group in enumerate(groups) if group in self._shared]
        consecutive = clips == list(range(clips[0], clips[0] + len(clips))) if clips else False
        part = slice(clips[0], clips[0] + len(clips)) if consecutive else clips
        return part, ClipGroups(numbers, len(groups), shared=shared, device=self._device)
