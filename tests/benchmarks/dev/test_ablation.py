"""The ablation: what its variants share, what depends only on the seed, and its tables."""

import io
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from lgd.benchmarks.dev import ablation
from lgd.benchmarks.dev.ablation import VARIANTS, AblationJob, AblationResult, configuration, initial_network, run_job
from lgd.pipeline.dataset.dataset import Dataset
from lgd.pipeline.loading.loader import train_loader
from lgd.training.models.config import Variant
from lgd.training.recipes import TrainConfig, recipe_named


def small_configuration(name: str, videos: int, steps: int, *, seed: int) -> TrainConfig:
    """Small, for speed: the tests are valid for any size."""
    config = configuration(name, videos, steps, seed=seed)
    return replace(config, batch_size=2, test_clips=1, transform=replace(config.transform, crop=32))


def job(dataset: Dataset, variant: Variant, steps: int = 1, seed: int = 0) -> AblationJob:
    videos = dataset.summary["splits"]["train"]
    rgb, com = (small_configuration(name, videos, steps, seed=seed) for name in ("nano-rgb", "nano-rgb-com"))
    return AblationJob(str(dataset.storage.root), variant, rgb, com, steps)


@pytest.fixture(autouse=True)
def _restore_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_variants_with_one_seed_start_from_the_same_weights_in_shared_tensors():
    config = configuration("nano-rgb", videos=50, steps=10, seed=3)
    complete = initial_network(config, "lgd", classes=4, channels=3).state_dict()
    different_seed = initial_network(replace(config, seed=4), "lgd", classes=4, channels=3).state_dict()
    assert not torch.equal(different_seed["local_head.weight"], complete["local_head.weight"])
    for variant in VARIANTS:
        network = initial_network(config, variant, classes=4, channels=3)
        assert network.config.block_variant == variant
        state = network.state_dict()
        assert {"stem.spatial.conv.weight", "res4.1.unit.expand.conv.weight", "local_head.weight"} <= set(state)
        assert ("res2.0.w_xg.outer.weight" in state) == (variant != "none")
        assert ("res2.0.w_gg.inner.weight" in state) == (variant in ("lgd", "v2"))
        for name, tensor in state.items():
            assert torch.equal(tensor, complete[name]), name


def test_variants_with_one_seed_train_on_the_same_clips_and_stage_2_on_the_clips_after_them(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
):
    seen: list[tuple[list[int], list[str], torch.Tensor]] = []

    def recording_loader(*arguments, **named):
        loader = train_loader(*arguments, **named)

        class Recording:
            device = loader.device

            def __iter__(self):
                for batch in loader:
                    seen.append((batch.position, batch.key, batch.video.clone()))
                    yield batch

        return Recording()

    monkeypatch.setattr(ablation, "train_loader", recording_loader)

    def trained_on(variant: Variant, seed: int = 0) -> list[tuple[list[int], list[str], torch.Tensor]]:
        seen.clear()
        run_job(job(dataset, variant, steps=2, seed=seed))
        return list(seen)

    complete = trained_on("lgd")
    assert [positions for positions, _, _ in complete] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    for variant in VARIANTS[:-1]:
        batches = trained_on(variant)
        assert len(batches) == 2
        for (_, keys, video), (_, complete_keys, complete_video) in zip(batches, complete[:2], strict=True):
            assert keys == complete_keys
            assert torch.equal(video, complete_video)
    assert not torch.equal(trained_on("none", seed=1)[0][2], complete[0][2])


def test_stage_2_starts_from_the_final_weights_of_stage_1(dataset: Dataset, monkeypatch: pytest.MonkeyPatch):
    started, ended = [], []
    train = ablation.train

    def recording_train(network, *arguments, **named):
        started.append({name: value.clone() for name, value in network.state_dict().items()})
        losses = train(network, *arguments, **named)
        ended.append({name: value.clone() for name, value in network.state_dict().items()})
        return losses

    monkeypatch.setattr(ablation, "train", recording_train)
    run_job(job(dataset, "lgd"))
    shared = started[1].keys() & ended[0].keys()
    assert shared == {name for name in ended[0] if "head" not in name}
    assert all(torch.equal(started[1][name], ended[0][name]) for name in shared)
    assert not torch.equal(started[0]["stem.spatial.conv.weight"], ended[0]["stem.spatial.conv.weight"])


def test_the_recipes_schedule_is_stretched_to_the_steps():
    for steps, videos in ((200, 56), (60, 700)):
        config = configuration("nano-rgb", videos, steps, seed=0)
        rates = [config.learning_rate(step, videos) for step in range(steps)]
        recipe = recipe_named("nano-rgb")
        usual = [recipe.learning_rate(step, videos) for step in range(recipe.steps(videos))]
        assert max(rates) == max(usual)
        assert rates[-1] == pytest.approx(usual[-1])
        share = sum(rate == max(rates) for rate in rates) / steps
        assert share == pytest.approx(sum(rate == max(usual) for rate in usual) / len(usual), abs=2 / steps)


def test_the_table_shows_mean_and_sample_standard_deviation_over_the_seeds():
    def result_of(network: str, seed: int, top1: float, losses: dict[str, list[float]]) -> AblationResult:
        return AblationResult("folder", network, seed, top1, losses, 1.0)

    rising = [float(step) for step in range(10)]  # five points: 0.5, 2.5, 4.5, 6.5, 8.5
    lgd = [
        result_of("lgd", s, t, {"local": [v + s for v in rising], "global": [2.0] * 10}) for s, t in ((0, 0.5), (1, 1))
    ]
    row = ablation.summary("lgd", lgd)
    assert row["top1"] == {"mean": 0.75, "deviation": pytest.approx(math.sqrt(0.125))}
    assert row["losses"]["local"]["curve"] == [1.0, 3.0, 5.0, 7.0, 9.0]
    assert row["losses"]["local"]["mean"] == 9.0
    assert row["losses"]["global"]["deviation"] == 0.0
    none = ablation.summary("none", [result_of("none", 0, 0.25, {"local": [1.0, 3.0]})])
    assert none["top1"] == {"mean": 0.25, "deviation": None}
    assert list(none["losses"]) == ["local"]

    entry = {"data": "folder", "splits": {"train": 8, "val": 4}, "table": [row]}
    text = io.StringIO()
    result = {"stream": "rgb", "steps": 10, "seeds": 2, "datasets": [entry]}
    ablation.print_tables(result, Console(file=text, width=100))
    assert "75.0 ± 35.4" in text.getvalue()
    assert "9.000 ± 0.707" in text.getvalue()


@pytest.mark.cluster
def test_the_file_is_complete_and_does_not_depend_on_the_number_of_processes(
    dataset_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setattr(ablation, "configuration", small_configuration)
    results = []
    for processes in (1, 2):
        file = tmp_path / f"{processes}.json"
        words = ["--data", dataset_folder, "--steps", 1, "--seeds", 1, "--jobs", processes, "--json", file]
        assert ablation.main(list(map(str, words))) == 0
        assert "top-1 %" in capsys.readouterr().out
        results.append(json.loads(file.read_text()))
    for result in results:
        (entry,) = result["datasets"]
        assert [row["network"] for row in entry["table"]] == list(ablation.NETWORKS)
        assert [outcome["network"] for outcome in entry["outcomes"]] == list(ablation.NETWORKS)
        assert {path for outcome in entry["outcomes"] for path in outcome["losses"]} == set(ablation.PATHS)
        assert entry["combination_config"]["optimizer.lr"] < entry["config"]["optimizer.lr"]
        assert all(outcome.pop("seconds") > 0 for outcome in entry["outcomes"])
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--data", "nowhere"], 1, "dataset nowhere does not exist"),
        (["--data", "nowhere", "--steps", "0"], 2, "--steps must be 1 or more"),
        (["--data", "nowhere", "--jobs", "0"], 2, "--jobs must be 1 or more"),
        (["--data", "nowhere", "--json", "no/such/file.json"], 1, "the folder no/such does not exist"),
    ],
)
def test_a_user_error_is_one_line(words: list[str], code: int, message: str, capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as stop:
        ablation.main(words)
    assert stop.value.code == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
