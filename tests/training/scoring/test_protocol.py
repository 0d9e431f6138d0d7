from collections.abc import Callable

import pytest
import tyro

from lgd.pipeline.console.errors import UsageError
from lgd.training.recipes import recipe_named
from lgd.training.scoring.protocol import ScoringResources, TestProtocol


def test_protocols_are_described_in_words():
    paper, long = recipe_named("kinetics400-flow-r50"), recipe_named("kinetics400-rgb-r50-long")
    assert TestProtocol(15).describe(paper) == "15 uniform clips of 16 whole frames"
    assert TestProtocol().describe(paper) == "15 uniform clips of 16 whole frames"
    assert TestProtocol(10, 3).describe(paper) == "10 uniform clips of 16 frames, 3 square crops each"
    assert TestProtocol(15).describe(long) == "15 uniform clips of 128 whole frames"
    assert TestProtocol(1, 3).describe(recipe_named("nano-rgb")) == (
        "1 uniform clips of 16 frames 2 apart, 3 square crops each"
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TestProtocol(0), "--clips must be 1 or more, not 0"),
        (lambda: ScoringResources(num_workers=0), "--num-workers must be 1 or more, not 0"),
        (lambda: ScoringResources(cpus_per_task=0), "--cpus-per-task must be more than 0, not 0"),
        (lambda: ScoringResources(batch_size=0), "--batch-size must be 1 or more, not 0"),
    ],
)
def test_numbers_that_are_too_small_are_refused(make: Callable[[], object], message: str):
    with pytest.raises(UsageError, match=message):
        make()


@pytest.mark.parametrize("option", ["--num-workers", "--workers"])
def test_the_number_of_workers_has_two_names(option: str):
    assert tyro.cli(ScoringResources, args=[option, "3", "--batch-size", "4"]) == ScoringResources(3, batch_size=4)


def test_pytest_does_not_collect_the_protocol_as_a_test():
    assert TestProtocol.__test__ is False
    assert "__test__" not in vars(TestProtocol(1))
