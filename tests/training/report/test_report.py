"""The report of `lgd report`, read as a browser and as a program reads it."""

import base64
import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from lgd.clusters.testbed.processes import run_lgd
from lgd.pipeline.console.errors import UsageError, UserError
from lgd.pipeline.dataset.dataset import Dataset, StreamSpec
from lgd.pipeline.dataset.index import Index
from lgd.pipeline.storage.storage import Storage
from lgd.training.fusion.fuse import fuse, given_rule
from lgd.training.fusion.join import join
from lgd.training.metrics_log import MetricsLog
from lgd.training.models.zoo import count
from lgd.training.recipes import flatten, recipe_named
from lgd.training.report import plots
from lgd.training.report.examples import chosen
from lgd.training.report.history import history, read_history
from lgd.training.report.inputs import read_inputs, short_names
from lgd.training.report.page import write_report
from lgd.training.report.results import grouped, most_confused
from lgd.training.run import VERSION, begin_run
from lgd.training.scoring.metrics import summary
from lgd.training.scoring.scores import UNLABELLED, Scores, read_scores, write_scores

NASTY = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "</style></script><svg onload=alert(1)>",
    "{{ 7 * 7 }} $x^2$ &amp;",
    "kézilabda 手球 \u202e \ud800",
    "x" * 500,
)
VOID = {"meta", "link", "img", "br", "input"}


class Page(HTMLParser):
    """What a browser makes of a page: elements with their attributes, and the text outside style and script."""

    def __init__(self, source: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.raw: dict[str, str] = {}
        self._open: list[str] = []
        self.feed(source)
        self.close()
        assert not self._open, "elements that are not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in ("style", "script"):
            self.raw[self._open[-1]] = self.raw.get(self._open[-1], "") + data
        else:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def ids(self) -> list[str]:
        return [attributes["id"] for _, attributes in self.elements if "id" in attributes]


def read(path: Path | str) -> Page:
    return Page(Path(path).read_text(encoding="utf-8"))


def made_up(
    name: str, keys: list[str], labels: np.ndarray, classes: tuple[str, ...], skill: float, seed: int
) -> Scores:
    """Predictions that are the better the more skill."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(len(keys), len(classes)))
    logits[np.arange(len(keys)), np.maximum(labels, 0)] += skill
    probabilities = np.exp(logits)
    probabilities = (probabilities / probabilities.sum(axis=1, keepdims=True)).astype(np.float32)
    return Scores(name, keys, labels, probabilities, classes, "val", {"stream": "rgb"})


def plain(folder: Path, classes: tuple[str, ...] = ("bend", "jack", "wave"), videos: int = 12, **changes) -> str:
    """A score file of no dataset."""
    path = str(folder / "plain.parquet")
    labels = np.arange(videos) % len(classes)
    scores = made_up(path, [f"v{i}" for i in range(videos)], labels, classes, 1.0, 0)
    write_scores(path, dataclasses.replace(scores, **changes))
    return path


@pytest.fixture(scope="module")
def things(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Runs of both streams (flow's is not finished), their scores and the fused ones, by the project's writers."""
    folder = tmp_path_factory.mktemp("report")
    index = Index(dataset, "rgb")
    rows = index.rows("val")
    keys, labels = index.keys(rows), index.labels[rows].astype(np.int64)
    runs, scores = [], []
    for seed, (stream, skill) in enumerate((("rgb", 1.2), ("flow", 0.8))):
        config = recipe_named(f"nano-{stream}")
        address = str(folder / f"nano-{stream}")
        run = begin_run(address, f"nano-{stream}", config, dataset=dataset)
        for first, last in ((0, 20), (10, 30)):  # it went on from the checkpoint after step 10
            log = MetricsLog(run, first)
            if not first:
                log.say("weights from nowhere")
            for step in range(first + 2, last + 1, 2):
                loss = {"loss_local": 3 / step, "loss_global": 2 / step, "loss": 5 / step}
                more = {"step_s": 0.5, "top1": step / 30, "data_wait": 0.01, "clips_per_s": 32.0, "rate": 0.02 / step}
                log.write({"step": step, "epoch": step * 16 / 12, **loss, **more, "workers": 1 + (step > 12)})
            log.write({"step": last, "val_top1": last / 40, "val_top5": 1.0, "val_videos": len(keys)})
            log.close()
        if stream == "rgb":
            run.storage.write("result.json", json.dumps({"steps": 30, "val_top1": 0.75}).encode())
        runs.append(address)
        each = made_up(str(folder / f"{stream}-val.parquet"), keys, labels, dataset.classes, skill, seed)
        about = {"stream": stream, "run": address, "fingerprint": dataset.fingerprint}
        scores.append(dataclasses.replace(each, about={**about, "data": dataset.storage.address}))
        write_scores(each.name, scores[-1])
    together = str(folder / "fused-val.parquet")
    write_scores(together, fuse(join([read_scores(each.name) for each in scores]), given_rule(2)))
    return [*runs, *(each.name for each in scores), together]


@pytest.fixture(scope="module")
def report(things: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Page, dict]:
    """The page, and what the command says in JSON."""
    out = tmp_path_factory.mktemp("page") / "new" / "report.html"
    done = run_lgd("report", out, *things, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["bytes"] == out.stat().st_size
    return read(out), document


def picture(uri: str) -> np.ndarray:
    """The picture in a data URI, as OpenCV decodes it."""
    decoded = cv2.imdecode(np.frombuffer(base64.b64decode(uri.partition(",")[2]), np.uint8), cv2.IMREAD_UNCHANGED)
    assert decoded is not None
    return decoded


def attributes_that_fetch(page: Page) -> Iterator[str]:
    for _, attributes in page.elements:
        yield from (attributes[name] for name in ("src", "href", "srcset", "xlink:href", "data") if name in attributes)


def check_alone(page: Page) -> None:
    """It fetches nothing and runs nothing but its own script."""
    assert all(value.startswith(("data:", "#")) for value in attributes_that_fetch(page))
    everything = " ".join([page.raw["style"], *(" ".join(attributes.values()) for _, attributes in page.elements)])
    assert "://" not in everything
    assert "@import" not in everything
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    (policy,) = [each["content"] for each in page.all("meta") if each.get("http-equiv") == "Content-Security-Policy"]
    script = base64.b64encode(hashlib.sha256(page.raw["script"].encode()).digest()).decode()
    rules = ("default-src 'none'", "img-src data:", "style-src 'unsafe-inline'", f"script-src 'sha256-{script}'")
    assert [rule.strip() for rule in policy.split(";")][:4] == list(rules)
    assert len(page.all("script")) == 1


def test_the_page_has_every_part_and_needs_nothing_else(report: tuple[Page, dict]):
    page, _ = report
    check_alone(page)
    parts = ["results", "training", "curves", "classes-1", "confusion-1", "calibration-1", "examples-1", "dataset"]
    assert [each["href"] for each in page.all("a")] == [f"#{part}" for part in parts]
    assert len(page.ids) == len(set(page.ids))
    assert set(parts) <= set(page.ids)
    used = {value for value in attributes_that_fetch(page) if value.startswith("#")}
    assert {value[1:] for value in used} <= set(page.ids)
    for title in ("Loss of the local path", "Loss of the global path", "Learning rate", "Time spent waiting for data"):
        assert title in page.text


def test_its_numbers_are_those_of_the_scores_and_runs(report: tuple[Page, dict], things: list[str], dataset: Dataset):
    page, document = report
    for path in things[2:]:
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
    assert "1 to 2; went on from a checkpoint 1 time, 10 steps done again" in page.text
    assert page.text.count("not finished") == 1
    assert "weights from nowhere" in page.text
    assert "top-1 75.0% at the end" in page.text
    assert document["notes"] == []


def test_examples_show_frames_and_flow_of_the_videos_that_they_name(report: tuple[Page, dict], things: list[str]):
    page, document = report
    wheel, *pictures = [each["src"] for each in page.all("img")]
    assert picture(wheel).shape[:2] == (112, 112)
    shown = sum(document["scores"][0]["examples"].values())
    assert len(pictures) == shown * 2 * 4  # both streams, four moments
    for uri in pictures:
        assert uri.startswith("data:image/jpeg;base64,")
        assert picture(uri).shape[0] == 64  # as it is stored
    group = group_of(things[2:])
    for rows in chosen(group).values():
        for row in rows:
            assert group.keys[row] in page.text


def group_of(paths: list[str]):
    scores = [read_scores(path) for path in paths]
    (group,) = grouped(scores, short_names(paths), range(len(scores)))
    return group


def test_examples_are_the_most_confident_mistakes_the_median_right_ones_and_what_fusing_changed():
    classes = ("a", "b", "c")
    labels = np.zeros(40, np.int64)
    keys = [f"v{i:02}" for i in range(40)]
    confidence = np.linspace(0.9, 0.51, 40)
    right = np.arange(40) % 2 == 0
    first = np.where(right, confidence, 1 - confidence)
    fused = Scores("f", keys, labels, np.stack([first, 1 - first, 0 * first], 1), classes, "val", {"stream": "fused"})
    alone = dataclasses.replace(fused, name="s", probabilities=fused.probabilities.copy(), about={"stream": "rgb"})
    for row in (4, 6, 7):
        alone.probabilities[row] = alone.probabilities[row, [1, 0, 2]]
    for order in ([fused, alone], [alone, fused]):
        (group,) = grouped(order, ["1", "2"], [0, 1])
        assert chosen(group) == {
            "mended": [4, 6],
            "spoilt": [7],
            "wrong": [1, 3, 5, 9, 11, 13],
            "right": [18, 20, 22, 24],  # of 0, 2, 8, 10, ... 38 the middle
        }
        assert group.gain is not None
        assert group.gain[0] == pytest.approx(1 / 40)
        assert np.isnan(group.gain[1:]).all()


def test_scores_are_joined_by_key_whatever_their_rows():
    labels = np.arange(10) % 3
    first = made_up("a", [f"v{i}" for i in range(10)], labels, ("x", "y", "z"), 1.0, 0)
    order = np.random.default_rng(1).permutation(10)
    crossed = Scores(
        "b", [first.keys[i] for i in order], labels[order], first.probabilities[order], first.classes, "val", {}
    )
    (group,) = grouped([first, crossed], ["a", "b"], [0, 1])
    assert (group.files[0].predicted == group.files[1].predicted).all()
    assert group.files[0].numbers == group.files[1].numbers
    pairs = most_confused(group.files[0])
    wrong = [
        (first.classes[a], first.classes[b]) for a, b in zip(labels, group.files[0].predicted, strict=True) if a != b
    ]
    assert sum(pair["videos"] for pair in pairs) == len(wrong)
    assert all(wrong.count((pair["true"], pair["taken_for"])) == pair["videos"] for pair in pairs)


def test_scores_look_like_their_run_also_where_it_was_moved(things: list[str], tmp_path: Path):
    rgb, flow, *files = things
    assert read_inputs([flow, rgb, *files], None).series() == [1, 0, 2]
    assert read_inputs([flow, *files], None).series() == [1, 0, 2]
    moved = tmp_path / "moved"
    shutil.copytree(flow, moved)
    scores = read_scores(files[1])
    recipe = {**scores.about, "recipe": "nano-flow"}
    write_scores(str(tmp_path / "s.parquet"), dataclasses.replace(scores, about=recipe))
    assert read_inputs([rgb, str(moved), str(tmp_path / "s.parquet")], None).series() == [1]


def test_scores_of_other_videos_have_a_part_each(tmp_path: Path):
    paths = []
    for split in ("val", "test"):
        (tmp_path / split).mkdir()
        paths.append(plain(tmp_path / split, split=split))
    document = write_report(str(tmp_path / "r.html"), paths)
    assert [part["split"] for part in document["scores"]] == ["val", "test"]
    assert [[*part["files"]] for part in document["scores"]] == [["val/plain"], ["test/plain"]]
    page = read(tmp_path / "r.html")
    assert "Part 1: 12 videos of 3 classes, split val" in page.text
    assert "Part 2: 12 videos of 3 classes, split test" in page.text
    assert {"classes-1", "classes-2", "examples-2"} <= set(page.ids)


def test_every_name_from_a_file_is_text_and_nothing_else(tmp_path: Path):
    keys = [f"{NASTY[i % 4]}-{i}" for i in range(12)]
    about = {name: NASTY[i % 4] for i, name in enumerate(("stream", "model", "recipe", "run", "protocol", "data"))}
    about["stream"] = NASTY[0]
    path = plain(tmp_path, classes=NASTY, keys=keys, split=NASTY[1], about=about)
    config = recipe_named("nano-rgb")
    folder = tmp_path / "run <script>alert(1)<script>"
    data = Dataset(Storage(tmp_path), NASTY[0], NASTY, 1, {})
    description = {"format": "lgd-run", "version": VERSION, "recipe": NASTY[1]}
    made = StreamSpec(config.stream, {NASTY[2]: NASTY[0]})
    settings = flatten(dataclasses.replace(config, init_from=NASTY[2]))
    folder.mkdir()
    about_data = {"hash": made.hash, "recipe": made.settings, "fingerprint": NASTY[0], "classes": data.classes}
    description |= {"config": settings, "data": about_data}
    (folder / "config.json").write_text(json.dumps(description))
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 0, "say": NASTY[1]}) + "\n")
    write_report(str(tmp_path / "r.html"), [path, str(folder)])
    page = read(tmp_path / "r.html")
    check_alone(page)
    assert {tag for tag, _ in page.elements}.isdisjoint({"iframe", "object", "form", "base"})
    assert all(each["src"].startswith("data:") for each in page.all("img"))
    for name in NASTY:
        assert " ".join(name.replace("\ud800", "\ufffd").split()) in page.text
    assert folder.name in page.text


def test_without_labels_there_are_predictions_and_no_accuracy(tmp_path: Path):
    path = plain(tmp_path, labels=np.full(12, UNLABELLED))
    document = write_report(str(tmp_path / "r.html"), [path])
    page = read(tmp_path / "r.html")
    assert document["scores"][0]["files"] == {"plain": None}
    assert "No video of plain has a label: there are predictions and no accuracy" in page.text
    assert not {"classes-1", "confusion-1", "calibration-1"} & set(page.ids)
    scores = read_scores(path)
    for key, row in zip(scores.keys, scores.probabilities, strict=True):
        assert f"{key} {scores.classes[row.argmax()]} {row.max():.1%}" in page.text


def test_videos_without_a_label_among_others_are_left_out_and_counted(tmp_path: Path):
    labels = np.arange(12) % 3
    labels[:2] = UNLABELLED
    path = plain(tmp_path, labels=labels)
    document = write_report(str(tmp_path / "r.html"), [path])
    scores = read_scores(path)
    assert document["scores"][0]["files"]["plain"] == summary(scores.probabilities[2:], scores.labels[2:])
    assert "2 of these videos have no label" in read(tmp_path / "r.html").text


@pytest.mark.parametrize(
    ("about", "note"),
    [
        ({}, "Nothing here says where the dataset is, so it is not described and the examples have no pictures: add"),
        ({"data": "/nowhere"}, "The dataset of these scores cannot be opened, so nothing of it is shown: there is no"),
    ],
)
def test_a_dataset_that_is_not_there_is_said_in_the_page(about: dict, note: str, tmp_path: Path):
    document = write_report(str(tmp_path / "r.html"), [plain(tmp_path, about=about)])
    (said,) = document["notes"]
    assert said.startswith(note)
    page = read(tmp_path / "r.html")
    assert said in page.text
    assert "dataset" not in page.ids
    assert not page.all("img")


def test_another_dataset_than_that_of_the_scores_is_said_in_the_page(dataset: Dataset, tmp_path: Path):
    path = plain(tmp_path, about={"fingerprint": "0" * 64})
    (said,) = write_report(str(tmp_path / "r.html"), [path], data=dataset.storage.address)["notes"]
    assert said.startswith(f"plain was scored on other videos than {dataset.storage.address} holds now")


def test_many_classes_are_a_picture_of_all_and_a_table_row_each(tmp_path: Path):
    classes = tuple(f"class {i}" for i in range(400))
    path = plain(tmp_path, classes=classes, videos=800)
    write_report(str(tmp_path / "r.html"), [path])
    page = read(tmp_path / "r.html")
    check_alone(page)
    assert (tmp_path / "r.html").stat().st_size < 1_000_000
    (uri,) = [each["src"] for each in page.all("img")]
    predicted = read_scores(path).probabilities.argmax(axis=1)
    seen = np.zeros((134, 134), bool)
    seen[np.arange(800) % 400 // 3, predicted // 3] = True
    assert ((picture(uri)[..., 3] > 0) == seen).all()
    assert all(name in page.text for name in classes)


def test_what_a_resumed_run_did_twice_counts_once(tmp_path: Path):
    lines = [{"step": s, "epoch": s / 2, "loss": float(s), "step_s": 1.0, "workers": 2} for s in range(1, 11)]
    lines += [{"step": 10, "val_top1": 0.5}, {"step": 6, "resumed": True}]
    lines += [{"step": s, "epoch": s / 2, "loss": -float(s), "step_s": 1.0, "workers": 3} for s in range(7, 9)]
    found = history(lines)
    assert found.curves["loss"].value.tolist() == [1, 2, 3, 4, 5, 6, -7, -8]
    assert found.curves["loss"].epoch.tolist() == [s / 2 for s in range(1, 9)]
    assert "val_top1" not in found.curves
    assert (found.steps, found.seconds, found.workers, found.resumptions, found.repeated) == (8, 8, (2, 3), 1, 4)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text + '{"step": 9, "lo')  # a line that is being written
    assert read_history(Storage(tmp_path)).steps == 8
    (tmp_path / "metrics.jsonl").write_text(text + '{"step": 9, "lo\n')
    with pytest.raises(UserError, match=r"metrics.jsonl is damaged in line 15"):
        read_history(Storage(tmp_path))


def test_long_curves_are_thinned_without_losing_their_mean_or_extremes():
    x = np.arange(100_000.0)
    y = np.random.default_rng(0).normal(size=len(x))
    thin_x, mean, low, high = plots.thinned(x, y)
    assert len(thin_x) == plots.POINTS
    assert mean.mean() == pytest.approx(y.mean(), abs=1e-3)
    assert (low.min(), high.max()) == (y.min(), y.max())
    assert (np.diff(thin_x) > 0).all()
    few = plots.thinned(x[:3], y[:3])
    assert (few[0].tolist(), few[1].tolist()) == (x[:3].tolist(), y[:3].tolist())


def test_plots_are_text_in_the_colors_of_the_page():
    x = np.arange(5.0)
    svg = str(plots.curves([(0, x, 0.002 * 2**x), (1, x, 0.004 + 0 * x)], 'a "plot"', "log", marked=False))
    page = Page(svg)
    assert "0.002" in page.texts
    assert {"var(--ink)", "var(--s0)", "var(--s1)"} <= {
        part.strip() for part in svg.replace('"', ";").split(":") for part in part.split(";")
    }
    assert "#0" not in svg.replace("#p", "")
    assert page.all("svg")[0]["aria-label"] == 'a "plot"'
    assert len({(look.color, look.dash, look.marker) for look in map(plots.series, range(28))}) == 28
    assert len({(look.dash, look.marker) for look in map(plots.series, range(4))}) == 4


def test_a_report_of_an_object_store_is_put_there(s3: str, tmp_path: Path):
    plain(tmp_path)
    Storage(s3).write("plain.parquet", (tmp_path / "plain.parquet").read_bytes())
    document = write_report(f"{s3}/r.html", [f"{s3}/plain.parquet"])
    assert Storage(s3).size("r.html") == document["bytes"]


@pytest.mark.parametrize(
    ("words", "kind", "message"),
    [
        (("{0}/run", "{0}/plain.parquet"), UsageError, "the first word is the report's file, such as report.html, not"),
        (("{0}/r.html",), UsageError, "a report is about run folders, score files or both"),
        (("{0}/r.html", "{0}"), UsageError, "is neither a run nor scores: a run is a folder with config.json"),
        (("{0}/r.html", "{0}/nothing"), UsageError, "nothing is not there: a run is a folder"),
        (("{0}/r.html", "{0}/none.parquet"), UserError, "there is no file"),
        (("{0}/r.html", "{0}/damaged.parquet"), UserError, "does not hold scores"),
        (("{0}/r.html", "{0}/damaged"), UserError, "does not describe a run"),
        (("{0}/plain.parquet/r.html", "{0}/plain.parquet"), UserError, "cannot write"),
    ],
)
def test_mistakes_are_one_line(words: tuple[str, ...], kind: type, message: str, tmp_path: Path):
    plain(tmp_path)
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1 but no more")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "config.json").write_text("{}")
    out, *things = (word.format(tmp_path) for word in words)
    with pytest.raises(kind, match=message) as raised:
        write_report(out, things)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "r.html").exists()


def test_a_dataset_that_is_asked_for_must_be_there(tmp_path: Path):
    with pytest.raises(UserError, match="there is no dataset"):
        write_report(str(tmp_path / "r.html"), [plain(tmp_path)], data=str(tmp_path / "gone"))
