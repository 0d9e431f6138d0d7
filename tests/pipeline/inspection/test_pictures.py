"""The sheets that `lgd inspect --pictures` draws, of datasets in which every pixel is known."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
import webdataset

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.dataset.dataset import Dataset, StreamSpec, open_dataset
from lgd.pipeline.dataset.flow_code import color, encode
from lgd.pipeline.dataset.tables import VIDEOS, videos_schema, write_table
from lgd.pipeline.inspection import pictures
from lgd.pipeline.inspection.pictures import MARGIN, PAPER, draw_videos, full_color_speed, resize_for_display
from lgd.pipeline.inspection.rebuild import rebuild_index
from lgd.pipeline.inspection.text import draw_text, text_width
from lgd.pipeline.loading.clip_order import evenly_spaced
from lgd.pipeline.storage.storage import Storage

BOUND = 8.0
RIGHT = 4.0  # pixels per frame
CLASSES = ("moving", "still – ακίνητο")
FRAMES, HEIGHT, WIDTH = 9, 40, 60


def make(folder: Path, streams: Sequence[str] = ("rgb", "flow"), videos: int = 2) -> Dataset:
    """Two videos: in `moving` the left half moves 4 pixels to the right in every frame, in `still` nothing moves."""
    storage = Storage(folder)
    specs = {name: StreamSpec(name, {"fps": 25.0} | ({"bound": BOUND} if name == "flow" else {})) for name in streams}
    for stream, spec in specs.items():
        storage.make_folder(stream)
        with storage.writer(f"{stream}/train-000000.tar") as file, webdataset.TarWriter(file, encoder=False) as tar:
            for label, key in enumerate("ab"[:videos]):
                frames = [_jpeg(stream, moving=label == 0)] * (FRAMES - (stream == "flow"))
                metadata = {"label": label, "width": WIDTH * (1 + (stream == "flow")), "height": HEIGHT}
                text = json.dumps({**metadata, "bytes": [len(frame) for frame in frames]}).encode()
                tar.write({"__key__": key, "json": text, "mjpeg": b"".join(frames)})
        rebuild_index(storage, spec, ["train-000000"])
    rows = [
        {"key": key, "path": key, "label": label, "class": name, "split": "train", "frames": FRAMES}
        | {"width": WIDTH, "height": HEIGHT, "shard": "train-000000"}
        | {f"{stream}_bytes": 1000 for stream in streams}
        | ({"flow_saturated": 0.125} if "flow" in streams else {})
        for label, (key, name) in enumerate(list(zip("ab", CLASSES, strict=True))[:videos])
    ]
    write_table(storage, VIDEOS, pa.Table.from_pylist(rows, videos_schema(streams)))
    counts = {"videos": videos, "rejected": 0, "reasons": {}, "frames": videos * FRAMES}
    summary = counts | {"splits": {"train": videos}, "bytes": dict.fromkeys(streams, 1000)}
    Dataset(storage, "f" * 16, CLASSES, 4, specs, summary).save()
    return open_dataset(storage)


def _jpeg(stream: str, moving: bool) -> bytes:
    flow = np.zeros((HEIGHT, WIDTH, 2), np.float32)
    flow[:, : WIDTH // 2, 0] = RIGHT * moving
    picture = encode(flow, BOUND)[0] if stream == "flow" else np.full((HEIGHT, WIDTH, 3), (200, 100, 50), np.uint8)
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()


def sheets(dataset: Dataset, folder: Path) -> dict[str, np.ndarray]:
    """Draw all videos; return each picture (RGB) by key."""
    drawn = draw_videos(dataset, str(folder))
    pictures = {}
    for row in drawn:
        picture = cv2.imread(row["file"], cv2.IMREAD_COLOR)
        assert picture is not None
        pictures[row["key"]] = picture[..., ::-1]
    return pictures


def cells(sheet: np.ndarray, stream: int, streams: int) -> list[np.ndarray]:
    """Return the frames of one stream (0: the upper one) in a sheet."""
    height, width = HEIGHT * 4, WIDTH * 4  # 40 pixels are enlarged by 4, to 160
    top = len(sheet) - (streams - stream) * (height + MARGIN)
    return [
        sheet[top : top + height, left : left + width]
        for left in range(MARGIN, MARGIN + pictures.FRAMES * (width + MARGIN), width + MARGIN)
    ]


def test_motion_has_the_color_of_its_direction_and_no_motion_is_white(tmp_path: Path):
    drawn = sheets(make(tmp_path / "data"), tmp_path / "pictures")
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {"train-a.png", "train-b.png"}
    red = color(np.array([[[RIGHT, 0]]], np.float32))[0, 0]
    for cell in cells(drawn["a"], 1, 2):
        assert (
            np.abs(cell[:, : WIDTH * 2 - 32].astype(int) - red).max() <= 8
        )  # JPEG rounds, and its blocks blur the edge
        assert cell[:, WIDTH * 2 + 32 :].min() >= 240
    for cell in cells(drawn["b"], 1, 2):
        assert (cell == 255).all()
    for sheet in drawn.values():
        for cell in cells(sheet, 0, 2):
            assert np.abs(cell.astype(int) - (50, 100, 200)).max() <= 6


@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_a_dataset_of_one_stream_shows_that_stream(tmp_path: Path, stream: str):
    one = sheets(make(tmp_path / "one", (stream,)), tmp_path / "pictures")["a"]
    both = sheets(make(tmp_path / "both"), tmp_path / "pictures of both")["a"]
    for ours, theirs in zip(cells(one, 0, 1), cells(both, int(stream == "flow"), 2), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert len(one) < len(both)


def test_the_returned_rows_describe_the_drawn_videos(tmp_path: Path):
    first, second = draw_videos(make(tmp_path / "data"), str(tmp_path / "pictures"))
    assert (first["key"], first["split"], first["class"]) == ("a", "train", "moving")
    assert Path(first["file"]) == tmp_path / "pictures" / "train-a.png"
    assert first["frames"] == evenly_spaced(FRAMES - 1, pictures.FRAMES).tolist()
    assert first["full_color_px"] == pytest.approx(RIGHT, abs=BOUND / 127)
    assert second["class"] == CLASSES[1]
    assert draw_videos(make(tmp_path / "rgb", ("rgb",)), str(tmp_path / "p"))[0]["full_color_px"] is None
    assert [row["key"] for row in draw_videos(open_dataset(tmp_path / "data"), str(tmp_path / "p"), 1)] == ["b"]


def test_noise_of_a_still_camera_stays_pale_and_an_outlier_does_not_make_the_rest_pale():
    noise = np.full((50, 50, 2), BOUND / 127, np.float32)
    assert color(noise, full_color_speed(noise, BOUND)).min() > 150
    moving = np.zeros((50, 50, 2), np.float32)
    moving[:10, :, 0] = 2
    moving[0, 0, 0] = 90
    assert full_color_speed(moving, BOUND) == pytest.approx(2)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((120, 160), (240, 320)),
        ((2, 3), (160, 240)),
        ((256, 340), (256, 340)),
        ((720, 1280), (256, 455)),
        ((2, 4000), (1, 960)),
        ((10, 500), (10, 500)),
    ],
)
def test_frames_are_resized_to_a_size_that_people_can_see(size: tuple[int, int], expected: tuple[int, int]):
    assert resize_for_display(np.zeros((*size, 3), np.uint8)).shape == (*expected, 3)


@pytest.mark.parametrize("name", ["ακίνητο", "прыжок", "żółć", "静止", "a\nb\udcff", "قفز", "w" * 300])
def test_the_class_name_is_drawn_in_its_own_letters(tmp_path: Path, name: str):
    sheet = next(pictures.sheets(make(tmp_path / "data", ("rgb",)), ["a"]))
    named = pictures.draw(replace(sheet, metadata={**sheet.metadata, "class": name}))
    other = pictures.draw(replace(sheet, metadata={**sheet.metadata, "class": "?" * len(name)}))
    title = slice(MARGIN, MARGIN + pictures.LINE)
    assert named.shape[1] >= MARGIN + text_width(name, pictures.TITLE_SIZE) + MARGIN
    expected = np.full_like(named[title], PAPER)
    baseline = pictures.LINE - pictures.DESCENT
    draw_text(expected, name, left=MARGIN, baseline=baseline, size=pictures.TITLE_SIZE, color=pictures.INK)
    np.testing.assert_array_equal(named[title], expected)
    assert named.shape != other.shape or (named[title] != other[title]).any()


def test_the_color_wheel_has_the_background_color_around_it():
    wheel = pictures.color_wheel(64)
    assert tuple(wheel[0, 0]) == PAPER
    assert wheel[32, 62, 0] == 255
    assert wheel[32, 62, 1] < 40  # to the right is red


def test_a_file_in_place_of_the_folder_is_an_error(tmp_path: Path):
    dataset = make(tmp_path / "data", ("rgb",))
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "pictures"):
        with pytest.raises(UserError, match="cannot write"):
            draw_videos(dataset, str(folder))


def test_a_video_without_a_label_is_drawn_without_a_class(unlabelled_dataset: Dataset, tmp_path: Path):
    drawn = draw_videos(unlabelled_dataset, str(tmp_path))
    assert [row["class"] for row in drawn if row["split"] == "test"] == [None, None]
    assert len(list(tmp_path.iterdir())) == 6
