"""`lgd predict`: video files -> classes, without a dataset."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lgd.clusters.testbed.processes import run_lgd
from lgd.pipeline.console.errors import UsageError, UserError
from lgd.pipeline.dataset.dataset import Dataset, StreamSpec
from lgd.pipeline.storage.storage import Storage
from lgd.prediction.options import PredictOptions
from lgd.prediction.predict_files import PredictResult, most_probable, predict_files, video_line
from lgd.preprocessing.demo_videos import write_video
from lgd.preprocessing.settings import Settings
from lgd.preprocessing.video.decode import decode
from lgd.preprocessing.video.rejections import Rejected
from lgd.training import gpu
from lgd.training.gpu import best_device
from lgd.training.recipes import recipe_named
from lgd.training.run import CONFIG, begin_run, open_run
from tests.prediction.random_runs import CLIPS, make_run, predict

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def given(videos: Path, tmp_path: Path) -> dict[str, str | None]:
    """Paths with unusual names and contents, each with the reason why it is rejected (None: it is not)."""
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
        "absent.mp4": "missing",
    }


def test_every_file_with_any_name_has_a_prediction_or_one_line_with_a_reason(
    given: dict[str, str | None], tmp_path: Path, runs: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    names = [*given, "plain.mp4"]
    command = ("predict", "--rgb", runs["rgb"], "--clips", CLIPS, "--top", 2)
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
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
            for either, first in zip(row["predictions"], rows[0]["predictions"], strict=True):
                assert either["class"] == first["class"]  # the file is a copy
                assert either["probability"] == pytest.approx(first["probability"], abs=1e-5)
    assert done.stderr.splitlines()[-1] == "lgd: 6 of 14 videos were rejected"
    assert f"predicting on {best_device()[1]}\n" in done.stderr
    assert "Traceback" not in done.stderr
    lines = [video_line(row) for row in rows]
    assert all(line.isprintable() for line in lines)
    assert [": rejected: " in line for line in lines] == ["rejected" in row for row in rows]


def test_several_videos_are_drawn_in_a_folder_without_the_rejected_ones(
    videos: Path, runs: dict[str, str], tmp_path: Path
):
    source = next(videos.rglob("up_000.mp4"))
    text = tmp_path / "text.mp4"
    text.write_text("not a video")
    paths = [str(source), str(text), str(source)]
    result = predict_files(paths, runs["rgb"], options=PredictOptions(clips=1, render=str(tmp_path / "out")))
    assert result.failed == "1 of 3 videos were rejected"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["up_000-2.mp4", "up_000.mp4"]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Rejected("timeout", "ffmpeg ran longer than 600 s"), "timeout (it cannot be drawn: ffmpeg ran longer"),
        (ZeroDivisionError("x"), "internal-error (it cannot be drawn: ZeroDivisionError: x (lgd/prediction/predict_fi"),
    ],
    ids=repr,
)
def test_a_file_that_cannot_be_drawn_has_one_line_and_the_other_files_are_drawn(
    error: Exception,
    expected: str,
    videos: Path,
    tmp_path: Path,
    runs: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
):
    def fail(path: Path, *arguments: object, **options: object) -> None:
        if path == paths[0]:
            raise error

    monkeypatch.setattr("lgd.prediction.predict_files.draw_video", fail)
    paths = sorted(videos.rglob("*.mp4"))[:2]
    result = predict(paths, runs["rgb"], render=str(tmp_path))
    first = result.lines()[0]
    assert str(first).startswith(f"{paths[0]}: rejected: {expected}")
    assert "render" in result.videos[1]
    assert result.failed == "1 of 2 videos were rejected"


def test_with_a_driver_that_is_too_old_videos_are_predicted_on_the_cpu_and_one_line_says_why(
    videos: Path, runs: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(gpu, "driver_version", lambda: "550.54")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    result = predict([next(videos.rglob("spin_000.mp4"))], rgb=runs["rgb"])
    assert not result.failed
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("predicting on"))
    assert line.startswith("predicting on the CPU: PyTorch ")
    assert "driver 550.54 is too old; CUDA 13.0 needs driver 580 or later" in line


def test_unsuitable_runs_and_options_are_refused_before_any_work(
    dataset: Dataset, runs: dict[str, str], tmp_path: Path, temporary_folder: Path
):
    renamed = replace(dataset, classes=(*dataset.classes[:-1], "sleep"))
    other = make_run(tmp_path / "other", "flow", renamed)
    untrained = str(tmp_path / "untrained")
    begin_run(untrained, "nano-rgb", recipe_named("nano-rgb"), dataset=dataset)
    old = tmp_path / "old"
    old.mkdir()
    (old / CONFIG).write_text('{"format": "lgd-run", "version": 1}')
    cases: list[tuple[type[UserError], str, dict]] = [
        (UsageError, "give a run with --rgb, one with --flow, or both", {}),
        (UsageError, "is a run of the flow stream: give it with --flow", {"rgb": runs["flow"]}),
        (UserError, "sleep", {"rgb": runs["rgb"], "flow": other}),
        (UserError, "no valid checkpoint", {"rgb": untrained}),
        (UserError, "version 1", {"rgb": str(old)}),
        (UserError, "is not a run", {"rgb": str(tmp_path)}),
        (UsageError, "--weights needs two runs", {"rgb": runs["rgb"], "weights": (1.0, 2.0)}),
        (UsageError, "not all 0", {**runs, "weights": (0.0, 0.0)}),
        (UsageError, "--top", {"rgb": runs["rgb"], "top": 0}),
        (UsageError, "--clips", {"rgb": runs["rgb"], "clips": 0}),
        (UsageError, "--crops", {"rgb": runs["rgb"], "crops": 2}),
        (UserError, "no best checkpoint", {"rgb": runs["rgb"], "checkpoint": "best"}),
    ]
    for kind, message, options in cases:
        given = {name: options.pop(name, None) for name in ("rgb", "flow")}
        with pytest.raises(kind, match=message) as raised:
            predict_files(["no-such-file.mp4"], **given, options=PredictOptions(**options))
        assert "\n" not in str(raised.value)
    with pytest.raises(UsageError, match="one or more"):
        predict_files([], rgb=runs["rgb"])
    assert list(temporary_folder.iterdir()) == []


def test_streams_with_different_sizes_and_frame_rates_are_made_separately(
    videos: Path, runs: dict[str, str], tmp_path: Path
):
    half = Settings(fps=12.5, short_side=48)
    data = Dataset(open_run(runs["rgb"]).storage, "f" * 16, open_run(runs["rgb"]).classes, 4, {})
    slow = make_run(tmp_path / "slow", "flow", _with_stream(tmp_path, data, half.spec("flow")))
    source = next(videos.rglob("grow_000.mp4"))
    (row,) = predict([source], rgb=runs["rgb"], flow=slow, render=str(tmp_path / "a.mp4")).document()["videos"]
    (alone,) = predict([source], flow=slow).document()["videos"]
    assert (row["frames"], alone["frames"], alone["seconds"]) == (40, 20, 1.6)
    assert row["streams"]["flow"] == alone["streams"]["flow"]
    assert len(decode(tmp_path / "a.mp4", 25, 64).rgb) == 40


def _with_stream(folder: Path, data: Dataset, spec: StreamSpec) -> Dataset:
    """Return a dataset with this stream that is sufficient to create a run."""
    return replace(data, storage=Storage(folder / "data"), specs={spec.stream: spec}, streams=(spec.stream,))


def test_the_classes_are_the_most_probable_ones_in_their_order():
    probabilities = np.array([0.1, 0.5, 0.15, 0.25])
    assert most_probable("abcd", probabilities, top=2) == [
        {"class": "b", "probability": 0.5},
        {"class": "d", "probability": 0.25},
    ]
    assert [each["class"] for each in most_probable("abcd", probabilities, top=9)] == list("bdca")


def test_the_document_and_the_lines_have_one_entry_per_file():
    classes = most_probable(["wave", "bend"], np.array([0.25, 0.75]), top=2)
    result = PredictResult(
        [
            {"path": "a\n.mp4", "predictions": classes, "streams": {"rgb": classes}, "frames": 50, "seconds": 2.0},
            {"path": "b.mp4", "rejected": "missing", "detail": "no such file"},
        ],
        {"rgb": "runs/rgb"},
    )
    assert result.lines() == ["a?.mp4: bend 75.0%, wave 25.0%", "b.mp4: rejected: missing (no such file)"]
    assert result.failed == "1 of 2 videos were rejected"
    assert not replace(result, videos=result.videos[:1]).failed
    assert list(result.document()) == ["videos", "runs"]
