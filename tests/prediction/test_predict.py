"""`lgd predict`: files in, classes out, without a dataset."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from lgd import cli
from lgd.clusters.testbed.processes import run_lgd
from lgd.pipeline.console.errors import UsageError, UserError
from lgd.pipeline.dataset.dataset import STREAMS, Dataset, Setting, StreamSpec
from lgd.pipeline.dataset.index import Index
from lgd.pipeline.inspection.pictures import MARGIN
from lgd.pipeline.storage.storage import Storage
from lgd.prediction.overlay import MIN_WIDTH, drawn_names, fitted, predicted
from lgd.prediction.predict import ClipScores, most_probable, prediction_line
from lgd.prediction.temporary import given_files, temporary_datasets
from lgd.preprocessing.demo_videos import write_video
from lgd.preprocessing.settings import Settings, settings_from_specs
from lgd.preprocessing.video.decode import decode
from lgd.training.checkpoint import CheckpointWriter
from lgd.training.fusion.fuse import fuse, make_rule
from lgd.training.fusion.join import join
from lgd.training.models.zoo import build
from lgd.training.recipes import recipe_named
from lgd.training.run import CONFIG, Run, begin_run, open_run
from lgd.training.scoring.inference import load_checkpoint, load_network, score_rows
from lgd.training.scoring.protocol import TestProtocol
from lgd.training.scoring.scores import Scores

CLIPS = 3
CPU = torch.device("cpu")


def make_run(folder: Path, stream: str, dataset: Dataset) -> str:
    """A run with one checkpoint, of a network that has learnt nothing and is sure of itself all the same."""
    config = recipe_named(f"nano-{stream}")
    run = begin_run(str(folder), f"nano-{stream}", config, dataset=dataset)
    torch.manual_seed(len(stream))
    network = build(config.model, len(dataset.classes), STREAMS[stream].channels)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.5 if parameter.dim() > 1 else 1.0)
    writer = CheckpointWriter(run)
    writer.save(0, network, torch.optim.SGD(network.parameters()))
    writer.close()
    return str(folder)


@pytest.fixture(scope="module")
def runs(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("runs")
    return {stream: make_run(folder / stream, stream, dataset) for stream in STREAMS}


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for what is temporary."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def predict(videos: Sequence[object], **options: object) -> dict:
    return cli.predict(tuple(map(str, videos)), clips=CLIPS, **options).document  # type: ignore[arg-type]


def evaluated(run: Run, dataset: Dataset) -> Scores:
    """The scores of the split val, as `lgd evaluate` has them."""
    network = load_network(run, load_checkpoint(run)["model"], CPU)
    found = list(score_rows(network, run.config, dataset, split="val", protocol=TestProtocol(CLIPS), device=CPU))
    index = Index(dataset, run.config.stream)
    rows = [video.row for video in found]
    probabilities = np.stack([video.probabilities for video in found])
    return Scores(run.storage.root, index.keys(rows), index.labels[rows].astype(int), probabilities, run.classes, "val")


def test_predictions_are_those_of_evaluate_and_fuse_for_a_video_of_a_dataset(
    videos: Path, dataset: Dataset, runs: dict[str, str], temporary: Path
):
    scores = [evaluated(open_run(run), dataset) for run in runs.values()]
    fused = fuse(join(scores), make_rule(2, (1.0, 3.0)))
    path_of = dict(zip(*dataset.videos(["key", "path"]).to_pydict().values(), strict=True))
    rows = predict([videos / path_of[key] for key in fused.keys], **runs, weights=(1.0, 3.0), top=99)["videos"]
    assert len(rows) == len(fused.keys) == 6
    for row, *expected in zip(rows, fused.probabilities, *(each.probabilities for each in scores), strict=True):
        assert (row["frames"], row["seconds"]) == (40, 1.6)
        for said, probabilities in zip((row["predictions"], *row["streams"].values()), expected, strict=True):
            ranked = [each["probability"] for each in said]
            assert ranked == sorted(ranked, reverse=True)
            by_class = {each["class"]: each["probability"] for each in said}
            assert [by_class[name] for name in dataset.classes] == pytest.approx(probabilities.tolist(), abs=1e-5)
    assert np.ptp(fused.probabilities, axis=0).max() > 1e-3  # else any video's numbers would do for all of them
    assert list(temporary.iterdir()) == []


def test_the_frames_have_the_bytes_that_lgd_preprocess_makes(videos: Path, dataset: Dataset):
    recipes = {stream: dataset.spec(stream) for stream in STREAMS}
    table = dataset.videos(["key", "path"]).to_pylist()[:3]
    files = given_files([str(videos / row["path"]) for row in table])
    with temporary_datasets(files, recipes, dataset.classes) as made:
        for stream in STREAMS:
            assert made.datasets[stream].spec(stream) == recipes[stream]
            index, new = Index(dataset, stream), Index(made.datasets[stream], stream)
            for file, row in zip(files, table, strict=True):
                sums = []
                for each, key in ((index, row["key"]), (new, file.key)):
                    place = each.keys(range(len(each))).index(key)
                    sums.append(each.frames(place, np.arange(each.lengths[place])).crc32.tolist())
                assert sums[0] == sums[1]


@pytest.fixture
def given(videos: Path, tmp_path: Path) -> dict[str, str | None]:
    """Paths of hostile names and contents, each with the reason for which it is rejected."""
    video = next(videos.rglob("spin_000.mp4"))
    folder = tmp_path / "given"
    (folder / "again").mkdir(parents=True)
    reasons: dict[str, str | None] = {}
    for name in ("plain.mp4", "again/plain.mp4", "-rgb.mp4", "naïve 動画 %03d.mp4", "two\nlines.mp4", "no-extension"):
        shutil.copy(video, folder / name)
        reasons[name] = None
    with open(os.fsencode(folder) + b"/latin-\xe9.mp4", "wb") as file:
        file.write(video.read_bytes())
    reasons[os.fsdecode(b"latin-\xe9.mp4")] = None
    (folder / "text.mp4").write_text("not a video\n")
    (folder / "empty.mp4").touch()
    (folder / "cut.mp4").write_bytes(video.read_bytes()[:-400])
    write_video(np.zeros((1, 64, 80, 3), np.uint8), Storage(folder), "still.mp4")
    return reasons | {
        "text.mp4": "unreadable",
        "empty.mp4": "unreadable",
        "again": "unreadable",
        "cut.mp4": "truncated",
        "still.mp4": "too-short",
        "gone.mp4": "missing",
    }


def test_every_file_has_an_answer_or_one_line_whatever_its_name(
    given: dict[str, str | None], tmp_path: Path, runs: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    names = [*given, "plain.mp4"]
    command = ("predict", "--rgb", runs["rgb"], "--clips", CLIPS, "--top", 2)
    env = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])}
    monkeypatch.chdir(tmp_path / "given")
    done = run_lgd(*command, "--json", "--", *names, env=env)
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert document["runs"] == {"rgb": runs["rgb"]}
    rows = document["videos"]
    assert [row.get("rejected") for row in rows] == [*given.values(), None]
    for name, row in zip(names, rows, strict=True):
        assert row["path"] == os.fsencode(name).decode("utf-8", "replace")
        if "rejected" in row:
            assert row.keys() == {"path", "rejected", "detail"}
            assert "\n" not in row["detail"]
        else:
            assert row.keys() == {"path", "predictions", "streams", "frames", "seconds"}
            assert row["streams"] == {"rgb": row["predictions"]}
            assert len(row["predictions"]) == 2
            for said, first in zip(row["predictions"], rows[0]["predictions"], strict=True):
                assert said["class"] == first["class"]  # it is a copy
                assert said["probability"] == pytest.approx(first["probability"], abs=1e-5)
    assert done.stderr.splitlines()[-1] == "lgd: 6 of 14 videos were rejected"
    assert "Traceback" not in done.stderr
    lines = [prediction_line(row) for row in rows]
    assert all(line.isprintable() for line in lines)
    assert [": rejected: " in line for line in lines] == ["rejected" in row for row in rows]


@pytest.mark.parametrize("streams", [("rgb", "flow"), ("rgb",), ("flow",)])
def test_drawn_videos_hold_the_source_and_its_flow_and_open_again(
    streams: tuple[str, ...], videos: Path, runs: dict[str, str], tmp_path: Path
):
    source = next(videos.rglob("sideways_001.mp4"))
    out = tmp_path / "drawn.mp4"
    (row,) = predict([source], **{s: runs[s] for s in streams}, render=str(out))["videos"]
    assert row["render"] == str(out)
    assert [path.name for path in tmp_path.iterdir()] == ["drawn.mp4"]
    written = out.read_bytes()
    assert written.index(b"moov") < written.index(b"mdat")  # plays while it is being loaded
    shown = decode(source, 25, 256).rgb
    height, width = shown.shape[1:3]
    columns = 1 + ("flow" in streams)
    inside = columns * (width + MARGIN) - MARGIN
    size = max(inside, MIN_WIDTH) + 2 * MARGIN
    drawn = decode(out, 25, min_side(out)).rgb
    assert len(drawn) == row["frames"] == 40
    assert drawn.shape[2] == size
    left = (size - inside) // 2
    top = slice(MARGIN, MARGIN + height)
    for number in (0, 20, 39):
        picture = drawn[number, top, left : left + width].astype(int)
        assert np.abs(picture - shown[number]).mean() < 8
    if columns == 2:
        beside = drawn[20, top, left + width + MARGIN : left + inside].astype(int)
        assert np.ptp(beside, axis=-1).max() > 60  # what moves has a color
        assert np.median(beside) > 200  # what does not is nearly white


def min_side(path: Path) -> int:
    """The shorter side of a file's pictures, pixels."""
    found = cv2.VideoCapture(str(path))
    return int(min(found.get(cv2.CAP_PROP_FRAME_WIDTH), found.get(cv2.CAP_PROP_FRAME_HEIGHT)))


def test_several_videos_are_drawn_into_a_folder_and_rejected_ones_are_not(
    videos: Path, runs: dict[str, str], tmp_path: Path
):
    source = next(videos.rglob("up_000.mp4"))
    text = tmp_path / "text.mp4"
    text.write_text("not a video")
    answer = cli.predict((str(source), str(text), str(source)), rgb=runs["rgb"], clips=1, render=str(tmp_path / "out"))
    assert answer.failed.startswith("1 of 3")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["up_000-2.mp4", "up_000.mp4"]


def test_two_videos_drawn_to_one_file_or_over_a_source_are_refused(tmp_path: Path):
    video = tmp_path / "a.mp4"
    video.write_bytes(b"precious")
    for out, given in ((tmp_path / "b.mp4", [video, video]), (video, [video]), (tmp_path, [video])):
        with pytest.raises(UsageError):
            drawn_names(str(out), [str(path) for path in given])
    (tmp_path / "c.mp4").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        drawn_names(str(tmp_path / "c.mp4"), [str(video)])
    assert video.read_bytes() == b"precious"


def test_runs_that_do_not_fit_are_refused_before_any_work(
    dataset: Dataset, runs: dict[str, str], tmp_path: Path, temporary: Path
):
    renamed = replace(dataset, classes=(*dataset.classes[:-1], "sleep"))
    other = make_run(tmp_path / "other", "flow", renamed)
    untrained = str(tmp_path / "untrained")
    begin_run(untrained, "nano-rgb", recipe_named("nano-rgb"), dataset=dataset)
    old = tmp_path / "old"
    old.mkdir()
    (old / CONFIG).write_text('{"format": "lgd-run", "version": 1}')
    cases: list[tuple[type[UserError], str, dict]] = [
        (UsageError, "--rgb, with --flow", {}),
        (UsageError, "one of flow: give it with --flow", {"rgb": runs["flow"]}),
        (UserError, "sleep", {"rgb": runs["rgb"], "flow": other}),
        (UserError, "no sound checkpoint", {"rgb": untrained}),
        (UserError, "version 1", {"rgb": str(old)}),
        (UserError, "is not a run", {"rgb": str(tmp_path)}),
        (UsageError, "for two runs", {"rgb": runs["rgb"], "weights": (1.0, 2.0)}),
        (UsageError, "not all 0", {**runs, "weights": (0.0, 0.0)}),
        (UsageError, "--top", {"rgb": runs["rgb"], "top": 0}),
        (UsageError, "--clips", {"rgb": runs["rgb"], "clips": 0}),
        (UsageError, "--crops", {"rgb": runs["rgb"], "crops": 2}),
        (UserError, "no best checkpoint", {"rgb": runs["rgb"], "checkpoint": "best"}),
    ]
    for kind, message, options in cases:
        with pytest.raises(kind, match=message) as raised:
            cli.predict(("no-such-file.mp4",), **options)
        assert "\n" not in str(raised.value)
    with pytest.raises(UsageError, match="one or more"):
        cli.predict((), rgb=runs["rgb"])
    assert list(temporary.iterdir()) == []


def test_nothing_temporary_stays_when_it_is_stopped(videos: Path, dataset: Dataset, temporary: Path):
    files = given_files([str(next(videos.rglob("*.mp4")))])
    try:
        with temporary_datasets(files, {"rgb": dataset.spec("rgb")}, dataset.classes):
            assert list(temporary.iterdir())
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert list(temporary.iterdir()) == []


def test_streams_of_other_sizes_and_rates_are_made_apart(videos: Path, runs: dict[str, str], tmp_path: Path):
    half = Settings(fps=12.5, short_side=48)
    data = Dataset(open_run(runs["rgb"]).storage, "f" * 16, open_run(runs["rgb"]).classes, 4, {})
    slow = make_run(tmp_path / "slow", "flow", _with_stream(tmp_path, data, half.spec("flow")))
    source = next(videos.rglob("grow_000.mp4"))
    (row,) = predict([source], rgb=runs["rgb"], flow=slow, render=str(tmp_path / "a.mp4"))["videos"]
    (alone,) = predict([source], flow=slow)["videos"]
    assert (row["frames"], alone["frames"], alone["seconds"]) == (40, 20, 1.6)
    assert row["streams"]["flow"] == alone["streams"]["flow"]
    assert len(decode(tmp_path / "a.mp4", 25, 64).rgb) == 40


def _with_stream(folder: Path, data: Dataset, recipe: StreamSpec) -> Dataset:
    """A dataset that has this stream, as far as a run asks."""
    (folder / "data" / recipe.stream).mkdir(parents=True)
    (folder / "data" / recipe.stream / "index.arrow").touch()
    return replace(data, storage=Storage(folder / "data"), specs={recipe.stream: recipe})


def change(recipe: StreamSpec, **settings: Setting) -> dict[str, StreamSpec]:
    return {recipe.stream: replace(recipe, settings={**recipe.settings, **settings})}


def test_other_versions_of_the_programs_are_said_and_other_settings_refused(
    videos: Path, dataset: Dataset, capsys: pytest.CaptureFixture[str]
):
    flow = Settings(short_side=64).spec("flow")
    settings = settings_from_specs(change(flow, opencv="3.4.0", solver="0"))
    assert settings.spec("rgb") == Settings(short_side=64).spec("rgb")
    for changed in (
        change(flow, order="gray, resize, flow"),
        change(flow, sharpness=2),
        {"flow": StreamSpec("flow", {})},
    ):
        with pytest.raises(UserError, match="the installed version"):
            settings_from_specs(changed)
    files = given_files([str(next(videos.rglob("*.mp4")))])
    with temporary_datasets(files, change(dataset.spec("rgb"), ffmpeg="2.8"), dataset.classes) as made:
        assert made.lengths() == ({"000000": 40}, 25.0)
    assert "ffmpeg: 2.8 -> " in capsys.readouterr().err.replace("\n", " ")


def test_a_moment_has_the_mean_of_the_clips_that_show_it_or_of_the_nearest():
    clips = ClipScores(
        np.zeros(2), np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]), np.array([[0, 2], [2, 3], [6, 7]]), frames=9
    )
    over_time = clips.over_time()
    assert over_time[:, 0].tolist() == [1, 1, 0.5, 0, 0, 0.5, 0.5, 0.5, 0.5]
    assert over_time.sum(1).tolist() == [1] * 9


def test_the_classes_named_are_the_most_probable_ones():
    probabilities = np.array([0.1, 0.5, 0.15, 0.25])
    said = most_probable("abcd", probabilities, top=2)
    assert said == [{"class": "b", "probability": 0.5}, {"class": "d", "probability": 0.25}]
    shown = predicted("abcd", probabilities, np.array([[0.7, 0.1, 0.1, 0.1], [0.0, 0.4, 0.3, 0.3]]), top=2)
    assert shown.classes == ["b", "d"]
    assert shown.others.tolist() == [0.7, 0.3]


@pytest.mark.parametrize("cut", [lambda text: text, lambda text: text * 20])
def test_a_long_name_is_cut_to_its_column(cut: Callable[[str], str]):
    text = cut("jumping")
    assert fitted(text, 100) == text or fitted(text, 100).endswith("...")
    assert len(fitted(text, 100)) < 20
