"""The result of `lgd bench train`. Times are not tested: they depend on the machine."""

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from lgd import cli
from lgd.benchmarks.train import StepSettings, summarize
from lgd.benchmarks.train_child import StepJob, decode_job, encode_job, measure
from lgd.clusters.testbed.processes import run_lgd
from lgd.pipeline.console.command_line import dispatch
from lgd.pipeline.console.errors import UsageError
from lgd.pipeline.loading.transform import Transform
from lgd.training.models.zoo import count
from lgd.training.recipes import recipe_named

SETTINGS = StepSettings(
    recipe="nano-rgb",
    model="lgd3d_nano",
    frames=16,
    crop=48,
    batch=4,
    micro_batch=None,
    precision="bfloat16",
    compile=True,
    parameters=1,
    forward_gmac_per_clip=2.0,
    device="cpu",
    threads=1,
    rounds=3,
    steps=2,
)
NANO = replace(
    recipe_named("nano-rgb"), batch_size=2, micro_batch_size=1, normalization_group=1, transform=Transform(crop=48)
)


def measured(ours: float, plain: float, data: float | None = None, wait: float = 0.0) -> dict:
    """Return a round, from the seconds per step of each variant."""
    variants = {"ours": (ours, 0.0, 100.0), "plain": (plain, 0.0, 200.0)}
    if data is not None:
        variants["data"] = (data, wait, 300.0)
    return {
        variant: {"step_s": [seconds, seconds], "data_wait": waited, "memory_mb": memory}
        for variant, (seconds, waited, memory) in variants.items()
    }


def test_numbers_follow_from_the_rounds():
    rounds = [measured(1, 2, 1.25, 0.02), measured(2, 2, 2.5, 0.04), measured(2, 5, 4, 0.2)]
    result = summarize(SETTINGS, rounds).document()
    assert result["ours"] == {"step_s": 2, "clips_per_s": 2, "gmac_per_s": 12, "data_wait": 0, "memory_mb": 100}
    assert result["plain"]["clips_per_s"] == 2
    assert result["data"]["clips_per_s"] == 1.6
    assert result["data"]["data_wait"] == 0.04
    assert result["ratios"] == {
        "ours_over_plain": 2,
        "memory_ours_over_plain": 0.5,
        "data_over_random": pytest.approx(0.8),
    }
    assert result["failed"] == []
    assert "ours_of_bf16_peak" not in result
    assert result["micro_batch"] is None
    on_gpu = summarize(replace(SETTINGS, device="NVIDIA H100 80GB HBM3"), rounds)
    assert on_gpu.ours_of_bf16_peak == pytest.approx(2 * 12e9 / 790e12)


def test_each_claim_is_judged_and_shown():
    result = summarize(SETTINGS, [measured(2, 1, 2, wait=0.06)])
    assert result.claims_not_met == [
        "0.50 times as fast as plain (required: 1)",
        "6.0% of the time spent waiting for data (maximum: 5%)",
    ]
    assert result.failed == "claims not met: " + "; ".join(result.claims_not_met)
    without_data = summarize(SETTINGS, [measured(1, 1)])
    assert without_data.claims_not_met == []
    assert "data" not in without_data.document()
    console = Console(file=io.StringIO(), width=200)
    for line in result.lines():
        console.print(line)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for shown in ("4 clips per step", "bfloat16, channels last, compiled", "plain, random clips", "6.0%", "0.50 times"):
        assert shown in text


@pytest.mark.parametrize("plain", [False, True])
def test_a_job_is_encoded_decoded_and_measured(plain: bool, dataset_folder: Path):
    job = StepJob(NANO, plain, None if plain else str(dataset_folder), classes=6, steps=2, threads=1)
    assert decode_job(encode_job(job)) == job
    result = measure(job)
    assert len(result["step_s"]) == 2
    assert 0 <= result["data_wait"] < 1
    assert result["compiled"] is False
    assert result["memory_mb"] > 0


def test_multiply_accumulates_depend_on_the_size_of_the_frames():
    assert count(NANO.model, 6, 3, size=112).gmac == pytest.approx(4 * count(NANO.model, 6, 3).gmac, rel=0.01)


@pytest.mark.cluster
def test_the_recipe_is_an_argument_and_its_fields_are_options(dataset_folder: Path):
    small = ("--batch-size", 1, "--transform.crop", 48, "--steps", 1, "--rounds", 1, "--json")
    done = run_lgd("bench", "train", "nano-flow", "--data", dataset_folder, *small)
    assert done.returncode in (0, 1), done.stderr  # 1: a claim about times is not met
    result = json.loads(done.stdout)
    assert (result["batch"], result["crop"], result["recipe"]) == (1, 48, "nano-flow")
    assert {"ours", "plain", "data"} <= result.keys()
    assert bool(result["failed"]) == (done.returncode == 1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nano-rgb", "--steps", "0"), "--steps must be 1 or more, not 0"),
        (("nano",), "unknown recipe 'nano'"),
        (("--steps", "3", "nano-rgb"), "the recipe must come first: RECIPE --steps ..."),
    ],
)
def test_a_mistake_is_a_usage_error(words: tuple[str, ...], message: str):
    with pytest.raises(UsageError, match=re.escape(message)):
        dispatch(["bench", "train", *words], cli.COMMANDS, cli.defaults)


def test_options_of_lgd_train_come_after_the_recipe_as_well():
    done = run_lgd("train", "--data", "nowhere", "nano-rgb", "--run", "x")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "lgd: the recipe must come first: RECIPE --data ...\n"
