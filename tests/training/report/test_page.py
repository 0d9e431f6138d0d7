"""The page of `lgd report`, read as a browser reads it, and the command's result."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from lgd.clusters.testbed.processes import run_lgd
from lgd.pipeline.console.errors import UsageError, UserError
from lgd.pipeline.dataset.dataset import Dataset, StreamSpec
from lgd.pipeline.dataset.index_format import UNLABELLED
from lgd.pipeline.storage.storage import Storage
from lgd.training.config_file import to_flat_dict
from lgd.training.models.zoo import count
from lgd.training.recipes import recipe_named
from lgd.training.report.examples import choose_examples
from lgd.training.report.inputs import short_names
from lgd.training.report.page import write_report
from lgd.training.report.results import Group, group_scores
from lgd.training.run import VERSION
from lgd.training.scoring.metrics import summary
from lgd.training.scoring.scores import read_scores
from tests.training.report.html_page import Page, check_loads_nothing, decoded_picture, link_targets, read_page
from tests.training.report.samples import write_plain_scores

HOSTILE_NAMES = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "</style></script><svg onload=alert(1)>",
    "{{ 7 * 7 }} $x^2$ &amp;",
    "kézilabda 手球 \u202e \ud800",
    "x" * 500,
)


@pytest.fixture(scope="module")
def report(report_inputs: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Page, dict]:
    """The page, and the JSON document of the command."""
    out = tmp_path_factory.mktemp("page") / "new" / "report.html"
    done = run_lgd("report", out, *report_inputs, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["bytes"] == out.stat().st_size
    return read_page(out), document


def test_the_page_has_every_section_and_loads_nothing(report: tuple[Page, dict]):
    page, _ = report
    check_loads_nothing(page)
    sections = ["results", "training", "curves", "classes-1", "confusion-1", "calibration-1", "examples-1", "dataset"]
    assert [each["href"] for each in page.all("a")] == [f"#{section}" for section in sections]
    assert len(page.ids) == len(set(page.ids))
    assert set(sections) <= set(page.ids)
    used = {value for value in link_targets(page) if value.startswith("#")}
    assert {value[1:] for value in used} <= set(page.ids)
    for title in ("Loss of the local path", "Loss of the global path", "Learning rate", "Time spent waiting for data"):
        assert title in page.text


def test_the_numbers_are_those_of_the_scores_and_runs(
    report: tuple[Page, dict], report_inputs: list[str], dataset: Dataset
):
    page, document = report
    for path in report_inputs[2:]:
        scores = read_scores(path)
        numbers = summary(scores.probabilities, scores.labels)
        low, high = numbers["intervals"]["top1"]
        assert f"{numbers['top1']:.1%} {100 * low:.1f}–{100 * high:.1f}" in page.text
        assert document["scores"][0]["files"][Path(path).stem] == numbers
    for stream, channels in (("rgb", 3), ("flow", 2)):
        size = count(recipe_named(f"nano-{stream}").model, len(dataset.classes), channels)
        assert f"{size.parameters:,} parameters" in page.text
        assert dataset.spec(stream).hash in page.text
    assert dataset.fingerprint[:16] in page.text
    assert "1 to 2; resumed from a checkpoint 1 time, 10 steps repeated" in page.text
    assert page.text.count("not finished") == 1
    assert "weights from nowhere" in page.text
    assert "top-1 75.0% last" in page.text
    assert "Wilson intervals for top-1 and top-5, bootstrap intervals over videos for mean class accuracy" in page.text
    assert document["notes"] == []


def test_examples_show_rgb_and_flow_of_the_named_videos(report: tuple[Page, dict], report_inputs: list[str]):
    page, document = report
    wheel, *pictures = [each["src"] for each in page.all("img")]
    assert decoded_picture(wheel).shape[:2] == (112, 112)
    shown = sum(document["scores"][0]["examples"].values())
    assert len(pictures) == shown * 2 * 4  # both streams, four moments
    for uri in pictures:
        assert uri.startswith("data:image/jpeg;base64,")
        assert decoded_picture(uri).shape[0] == 64  # the stored size
    group = group_of(report_inputs[2:])
    for rows in choose_examples(group).values():
        for row in rows:
            assert group.keys[row] in page.text


def group_of(paths: list[str]) -> Group:
    """Return the only group of score files."""
    scores = [read_scores(path) for path in paths]
    (group,) = group_scores(scores, short_names(paths), range(len(scores)))
    return group


def test_scores_of_different_videos_have_a_section_each(tmp_path: Path):
    paths = []
    for split in ("val", "test"):
        (tmp_path / split).mkdir()
        paths.append(write_plain_scores(tmp_path / split, split=split))
    result = write_report(str(tmp_path / "r.html"), paths)
    assert [group.split for group in result.scores] == ["val", "test"]
    assert [[*group.files] for group in result.scores] == [["val/plain"], ["test/plain"]]
    page = read_page(tmp_path / "r.html")
    assert "Group 1: 12 videos of 3 classes, split val" in page.text
    assert "Group 2: 12 videos of 3 classes, split test" in page.text
    assert {"classes-1", "classes-2", "examples-2"} <= set(page.ids)


def test_names_from_files_are_only_text(tmp_path: Path):
    keys = [f"{HOSTILE_NAMES[i % 4]}-{i}" for i in range(12)]
    metadata = {
        name: HOSTILE_NAMES[i % 4] for i, name in enumerate(("stream", "model", "recipe", "run", "protocol", "data"))
    }
    metadata["stream"] = HOSTILE_NAMES[0]
    path = write_plain_scores(tmp_path, classes=HOSTILE_NAMES, keys=keys, split=HOSTILE_NAMES[1], metadata=metadata)
    config = recipe_named("nano-rgb")
    folder = tmp_path / "run <script>alert(1)<script>"
    description = {"format": "lgd-run", "version": VERSION, "recipe": HOSTILE_NAMES[1]}
    spec = StreamSpec(config.stream, {HOSTILE_NAMES[2]: HOSTILE_NAMES[0]})
    settings = to_flat_dict(dataclasses.replace(config, init_from=HOSTILE_NAMES[2]))
    folder.mkdir()
    data_fields = {"hash": spec.hash, "recipe": spec.settings, "fingerprint": "<b>", "classes": HOSTILE_NAMES[:4]}
    description |= {"config": settings, "data": data_fields}
    (folder / "config.json").write_text(json.dumps(description))
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 0, "say": HOSTILE_NAMES[1]}) + "\n")
    write_report(str(tmp_path / "r.html"), [path, str(folder)])
    page = read_page(tmp_path / "r.html")
    check_loads_nothing(page)
    assert {tag for tag, _ in page.elements}.isdisjoint({"iframe", "object", "form", "base"})
    assert all(each["src"].startswith("data:") for each in page.all("img"))
    for name in HOSTILE_NAMES:
        assert " ".join(name.replace("\ud800", "\ufffd").split()) in page.text
    assert folder.name in page.text


def test_without_labels_there_are_predictions_but_no_accuracy(tmp_path: Path):
    path = write_plain_scores(tmp_path, labels=np.full(12, UNLABELLED))
    result = write_report(str(tmp_path / "r.html"), [path])
    page = read_page(tmp_path / "r.html")
    assert result.scores[0].files == {"plain": None}
    assert "No video of plain has a label, so there are predictions but no accuracy" in page.text
    assert not {"classes-1", "confusion-1", "calibration-1"} & set(page.ids)
    scores = read_scores(path)
    for key, row in zip(scores.keys, scores.probabilities, strict=True):
        assert f"{key} {scores.classes[row.argmax()]} {row.max():.1%}" in page.text


def test_videos_without_a_label_are_counted_but_not_scored(tmp_path: Path):
    labels = np.arange(12) % 3
    labels[:2] = UNLABELLED
    path = write_plain_scores(tmp_path, labels=labels)
    result = write_report(str(tmp_path / "r.html"), [path])
    scores = read_scores(path)
    assert result.scores[0].files["plain"] == summary(scores.probabilities[2:], scores.labels[2:])
    assert "2 of these videos have no label" in read_page(tmp_path / "r.html").text


@pytest.mark.parametrize(
    ("metadata", "start", "end"),
    [
        ({}, "The location of the dataset is not known, so the report", ": add --data DATASET to the command."),
        ({"data": "/nowhere"}, "The dataset of these scores cannot be opened", "--out /nowhere`."),
    ],
)
def test_a_missing_dataset_is_a_note_in_the_page(metadata: dict, start: str, end: str, tmp_path: Path):
    result = write_report(str(tmp_path / "r.html"), [write_plain_scores(tmp_path, metadata=metadata)])
    (note,) = result.notes
    assert note.startswith(start)
    assert note.endswith(end)
    assert result.lines()[0] == note
    page = read_page(tmp_path / "r.html")
    assert note in page.text
    assert "dataset" not in page.ids
    assert not page.all("img")


def test_a_different_dataset_than_that_of_the_scores_is_a_note_in_the_page(dataset: Dataset, tmp_path: Path):
    path = write_plain_scores(tmp_path, metadata={"fingerprint": "0" * 64})
    (note,) = write_report(str(tmp_path / "r.html"), [path], data=dataset.storage.address).notes
    assert note.startswith(f"plain scores different videos than {dataset.storage.address} now holds")


def test_the_confusion_of_many_classes_is_a_picture(tmp_path: Path):
    classes = tuple(f"class {i}" for i in range(400))
    path = write_plain_scores(tmp_path, classes=classes, videos=800)
    write_report(str(tmp_path / "r.html"), [path])
    page = read_page(tmp_path / "r.html")
    check_loads_nothing(page)
    assert (tmp_path / "r.html").stat().st_size < 1_000_000
    (uri,) = [each["src"] for each in page.all("img")]
    predicted = read_scores(path).probabilities.argmax(axis=1)
    expected = np.zeros((134, 134), bool)
    expected[np.arange(800) % 400 // 3, predicted // 3] = True
    assert ((decoded_picture(uri)[..., 3] > 0) == expected).all()
    assert all(name in page.text for name in classes)


def test_a_report_can_be_written_to_an_object_store(s3: str, tmp_path: Path):
    write_plain_scores(tmp_path)
    Storage(s3).write("plain.parquet", (tmp_path / "plain.parquet").read_bytes())
    result = write_report(f"{s3}/r.html", [f"{s3}/plain.parquet"])
    assert Storage(s3).size("r.html") == result.bytes


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (
            ("{0}/run", "{0}/plain.parquet"),
            UsageError,
            "the first argument must be the report's file, such as report.html, not",
        ),
        (("{0}/r.html",), UsageError, "name one or more run folders or score files"),
        (("{0}/r.html", "{0}"), UsageError, "is neither a run nor a score file: a run is a folder with config.json"),
        (("{0}/r.html", "{0}/nothing"), UsageError, "nothing does not exist: a run is a folder"),
        (("{0}/r.html", "{0}/none.parquet"), UserError, "none.parquet is missing"),
        (("{0}/r.html", "{0}/damaged.parquet"), UserError, "is not a score file"),
        (("{0}/r.html", "{0}/damaged"), UserError, "does not describe a run"),
        (("{0}/plain.parquet/r.html", "{0}/plain.parquet"), UserError, "cannot write"),
    ],
)
def test_user_errors_are_one_line(arguments: tuple[str, ...], kind: type, message: str, tmp_path: Path):
    write_plain_scores(tmp_path)
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1 but no more")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "config.json").write_text("{}")
    out, *paths = (argument.format(tmp_path) for argument in arguments)
    with pytest.raises(kind, match=message) as raised:
        write_report(out, paths)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "r.html").exists()


def test_the_dataset_of_the_option_data_must_exist(tmp_path: Path):
    with pytest.raises(UserError, match="does not exist"):
        write_report(str(tmp_path / "r.html"), [write_plain_scores(tmp_path)], data=str(tmp_path / "missing"))
