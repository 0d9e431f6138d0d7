"""Bookkeeping of CUDA graphs, with a recorder that runs on the CPU."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.loading.loader import Batch
from lgd.training.recipes import recipe_named
from lgd.training.steps.cuda_graph import MAX_CLIPS, MAX_GRAPHS, WARM_UP_STEPS, GraphedBackward, uses_graph

GPU, CPU = torch.device("cuda"), torch.device("cpu")
CONFIG = replace(recipe_named("nano-rgb"), batch_size=4)


class Recorder:
    """Records a function and runs it in each replay, into the tensors of the first time, as a graph does."""

    def __init__(self, network: torch.nn.Module, problem: str | None = None) -> None:
        self.network, self.problem, self.calls = network, problem, list[str]()

    def warm_up(self, compute: Callable[[], Any]) -> Any:
        self.calls.append("warm up")
        return compute()

    def record(self, compute: Callable[[], Any]) -> Any:
        self.calls.append("record")
        losses, correct = compute()  # a graph would not run it: the gradients of this time must not be used
        parameters = list(self.network.parameters())
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if self.problem:
            raise RuntimeError(self.problem)
        for gradient in gradients:
            gradient.fill_(torch.nan)

        def replay() -> None:
            self.calls.append("replay")
            for parameter in parameters:
                parameter.grad = None
            new_losses, new_correct = compute()
            for name, loss in new_losses.items():
                losses[name].copy_(loss)
            correct.copy_(new_correct)
            for gradient, parameter in zip(gradients, parameters, strict=True):
                assert parameter.grad is not None
                gradient.copy_(parameter.grad)
                parameter.grad = None

        return replay, (losses, correct)


def batch(number: int, clips: int = 4, positions: list[int] | None = None) -> Batch:
    video = torch.full((clips, 3), float(number))
    found = list(range(4 * number, 4 * number + clips)) if positions is None else positions
    return Batch(video, torch.full((clips,), number), [""] * clips, found)


def trained(batches: list[Batch], graphed: bool, problem: str | None = None) -> tuple[list, list[str], list[str]]:
    """Return losses and weights of each step, the calls of the recorder, and its reports."""
    torch.manual_seed(0)
    network = torch.nn.Linear(3, 1)
    recorder, reports = Recorder(network, problem), list[str]()
    graphs = GraphedBackward(network, CONFIG, recorder, report=reports.append)
    results = []

    def compute(video: torch.Tensor, label: torch.Tensor, parts: list[int]) -> Any:
        assert parts == list(range(len(label)))
        loss = (network(video).squeeze(1) - label).square().mean()
        loss.backward()
        return {"local": loss.detach()}, (label > 1).float().mean()

    for one in batches:
        network.zero_grad(set_to_none=True)
        parts = list(range(len(one.key)))
        losses, correct = graphs(one, partial(list, parts), compute) if graphed else compute(*one[:2], parts)
        with torch.no_grad():
            for parameter in network.parameters():
                assert parameter.grad is not None
                parameter.sub_(parameter.grad, alpha=0.01)
        results.append((losses["local"], correct, network.weight.detach().clone()))
    return results, recorder.calls, reports


def test_steps_by_graphs_equal_steps_as_usual():
    batches = [batch(number) for number in range(6)]
    plain, _, _ = trained(batches, graphed=False)
    graphed, calls, reports = trained(batches, graphed=True)
    torch.testing.assert_close(graphed, plain, rtol=0, atol=0)  # also those of the first steps, after all the others
    assert calls == ["warm up"] * WARM_UP_STEPS + ["record"] + ["replay"] * (6 - WARM_UP_STEPS)
    assert reports == []


def test_each_layout_has_its_graph_and_other_shares_run_as_usual():
    shapes = [(clips, list(range(clips))) for clips in (4, 3)] + [(3, [0, 1, 3])] + [(2, [0, 1]), (1, [2])]
    batches = [batch(n, clips, positions) for n in range(WARM_UP_STEPS + 1) for clips, positions in shapes]
    plain, _, _ = trained(batches, graphed=False)
    graphed, calls, _ = trained(batches, graphed=True)
    torch.testing.assert_close(graphed, plain, rtol=0, atol=0)
    assert calls.count("record") == calls.count("replay") == MAX_GRAPHS
    assert calls.count("warm up") == WARM_UP_STEPS * MAX_GRAPHS


def test_positions_of_later_batches_have_the_same_layout():
    _, calls, _ = trained(
        [batch(0, positions=[4 * n, 4 * n + 1, 4 * n + 2, 4 * n + 3]) for n in range(5)], graphed=True
    )
    assert calls.count("record") == 1


def test_a_step_that_cannot_be_recorded_runs_as_usual_with_one_line():
    batches = [batch(number) for number in range(6)]
    plain, _, _ = trained(batches, graphed=False)
    graphed, calls, reports = trained(batches, graphed=True, problem="operation not permitted\nwhen capturing")
    torch.testing.assert_close(graphed, plain, rtol=0, atol=0)
    assert calls == ["warm up"] * WARM_UP_STEPS + ["record"]
    (line,) = reports
    assert "(operation not permitted)" in line
    assert "\n" not in line


def decide(
    setting: Any, *, spread: bool = False, dropout: float = 0.0, clips: int = 8, device: torch.device = GPU
) -> Any:
    config = replace(CONFIG, batch_size=2 * clips, model=replace(CONFIG.model, dropout=dropout))
    groups: Any = SimpleNamespace(spread=spread)
    return uses_graph(setting, config, groups, device=device, workers=2)


def test_auto_uses_graphs_for_small_shares_on_a_gpu_where_they_are_possible():
    assert decide("auto") == (True, "")
    assert decide("auto", clips=MAX_CLIPS + 1) == (False, f"{MAX_CLIPS + 1} clips per worker")
    assert decide("auto", spread=True) == (False, "normalization groups are spread over workers")
    assert decide("auto", dropout=0.5)[0] is False
    assert decide("auto", device=CPU) == (False, "")
    assert decide(False) == (False, "")
    assert decide(True, clips=64) == (True, "")


def test_what_a_user_asks_for_and_is_not_possible_is_refused_in_one_line():
    for impossible in ({"device": CPU}, {"spread": True}, {"dropout": 0.5}):
        with pytest.raises(UserError, match=r"--cuda-graph true .* train with --cuda-graph auto") as caught:
            decide(True, **impossible)
        assert "\n" not in str(caught.value)
