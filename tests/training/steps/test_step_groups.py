"""The parts of a worker's share and their normalization groups."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from lgd.pipeline.console.errors import UsageError
from lgd.pipeline.loading.clip_order import rank_slice
from lgd.training.recipes import RECIPES, TrainConfig
from lgd.training.steps.step_groups import StepGroups

CPU = torch.device("cpu")


def config(batch: int, group: int, micro_batch: int | None = None) -> TrainConfig:
    return replace(RECIPES["nano-rgb"], batch_size=batch, normalization_group=group, micro_batch_size=micro_batch)


def parts_of(groups: StepGroups, positions: list[int]) -> list[tuple[list[int], list[list[int]]]]:
    """Return for each part its clips, and the clips of each of its groups."""
    result = []
    for part, clip_groups in groups.parts(positions):
        clips = list(range(len(positions)))[part] if isinstance(part, slice) else part
        members: list[list[int]] = [[] for _ in range(len(clip_groups.members))] if clip_groups else []
        if clip_groups:
            for clip, number in zip(clips, clip_groups.of_clip.tolist(), strict=True):
                members[number].append(clip)
        result.append((clips, members))
    return result


def test_a_share_of_complete_groups_is_one_part():
    groups = StepGroups(config(16, 8), 0, 1, device=CPU)
    assert parts_of(groups, list(range(32, 48))) == [(list(range(16)), [list(range(8)), list(range(8, 16))])]


def test_a_batch_that_is_no_multiple_of_the_group_ends_with_a_smaller_group():
    groups = StepGroups(config(10, 4), 0, 1, device=CPU)
    ((_, members),) = parts_of(groups, list(range(20, 30)))
    assert [len(group) for group in members] == [4, 4, 2]


def test_micro_batches_hold_complete_groups():
    groups = StepGroups(config(16, 4, micro_batch=8), 0, 1, device=CPU)
    assert [(clips, len(members)) for clips, members in parts_of(groups, list(range(16)))] == [
        (list(range(8)), 2),
        (list(range(8, 16)), 2),
    ]


def test_without_groups_parts_are_slices_of_the_micro_batch():
    groups = StepGroups(config(10, 0, micro_batch=4), 0, 1, device=CPU)
    assert list(groups.parts(list(range(10)))) == [(slice(0, 4), None), (slice(4, 8), None), (slice(8, 12), None)]


def test_clips_that_were_left_out_are_missing_in_their_group():
    groups = StepGroups(config(8, 4), 0, 1, device=CPU)
    ((_, members),) = parts_of(groups, [8, 9, 11, 12, 14, 15])
    assert members == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("size", [1, 4, 12, 15])
def test_micro_batches_that_split_groups_are_refused_with_the_sizes_that_fit(size: int):
    with pytest.raises(
        UsageError, match=r"--micro-batch-size \d+ does not hold complete groups .* a multiple of 8 \(8, 16, 24, ...\)"
    ):
        config(64, 8, size).check_micro_batches()


@pytest.mark.parametrize(("batch", "group", "size"), [(64, 8, 8), (64, 8, 16), (8, 8, 64), (8, 0, 3), (8, 8, None)])
def test_micro_batches_that_fit_are_accepted(batch: int, group: int, size: int | None):
    config(batch, group, size).check_micro_batches()


@given(batch=st.integers(1, 40), group=st.integers(1, 16), workers=st.integers(2, 6), micro_batches=st.integers(0, 3))
def test_every_clip_is_in_one_part_and_workers_agree_on_the_order_of_shared_groups(
    batch: int, group: int, workers: int, micro_batches: int
):
    workers = min(workers, batch)
    these = config(batch, group, micro_batches * group or None)
    created: list[list[int]] = []

    def new_group(ranks: list[int]) -> Any:
        created.append(ranks)
        return tuple(ranks)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dist, "new_group", new_group)
        patch.setattr("lgd.training.steps.step_groups.ClipGroups", FakeGroups)
        by_rank = []
        for rank in range(workers):
            created.clear()
            groups = StepGroups(these, rank, workers, device=CPU)
            by_rank.append((groups, list(created)))
            positions = list(rank_slice(3, batch, rank, workers=workers, group=group))
            seen: list[int] = []
            for part, clip_groups in groups.parts(positions):
                clips = list(range(len(positions)))[part] if isinstance(part, slice) else part
                assert isinstance(clip_groups, FakeGroups)
                assert len(clip_groups.numbers) == len(clips)
                assert len(clips) <= (these.micro_batch_size or batch)
                seen += clips
            assert sorted(seen) == list(range(len(positions)))
        assert all(created_by == by_rank[0][1] for _, created_by in by_rank)
        _check_no_deadlock(
            [
                list(groups.parts(list(rank_slice(3, batch, rank, workers=workers, group=group))))
                for rank, (groups, _) in enumerate(by_rank)
            ]
        )


class FakeGroups:
    """Arguments of ClipGroups."""

    def __init__(self, numbers: list[int], groups: int, *, shared: list, device: torch.device) -> None:
        self.numbers, self.shared = numbers, shared


def _check_no_deadlock(parts_by_rank: list[list]) -> None:
    """Let every worker compute its parts in order; a part needs all workers of its shared groups to be at a part with
    the same groups."""
    done = [0] * len(parts_by_rank)

    def current(rank: int):
        return parts_by_rank[rank][done[rank]] if done[rank] < len(parts_by_rank[rank]) else None

    while any(current(rank) for rank in range(len(done))):
        ready = [rank for rank in range(len(done)) if current(rank)]
        while True:  # remove workers that wait for one that is not at the same group
            waiting = [
                rank
                for rank in ready
                if any(
                    other not in ready or members not in [m for _, m in current(other)[1].shared]
                    for _, members in current(rank)[1].shared
                    for other in members
                )
            ]
            if not waiting:
                break
            ready = [rank for rank in ready if rank not in waiting]
        assert ready, "no worker can continue"
        for rank in ready:
            done[rank] += 1


def test_frozen_statistics_need_no_groups():
    frozen = replace(config(16, 8, micro_batch=3), freeze_normalization=True)
    frozen.check_micro_batches()
    parts = StepGroups(frozen, 0, 1, device=CPU).parts(list(range(6)))
    assert list(parts) == [(slice(0, 3), None), (slice(3, 6), None)]
