import errno
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from lgd.pipeline.console.errors import NodeError
from lgd.pipeline.dataset.dataset import STREAMS, Dataset
from lgd.pipeline.dataset.index import Index
from lgd.prediction.temporary import given_files, temporary_datasets
from lgd.preprocessing.settings import Settings
from lgd.preprocessing.shard_tar import read_shard
from lgd.preprocessing.video.decode import Frames, decode
from tests.preprocessing.video.generated_videos import X264, ffmpeg


def test_the_frames_have_the_same_bytes_as_those_of_lgd_preprocess(videos: Path, dataset: Dataset):
    specs = {stream: dataset.spec(stream) for stream in STREAMS}
    table = dataset.videos(["key", "path"]).to_pylist()[:3]
    files = given_files([str(videos / row["path"]) for row in table])
    with temporary_datasets(files, specs, dataset.classes) as temporary:
        for stream in STREAMS:
            assert temporary.datasets[stream].spec(stream) == specs[stream]
            index, new_index = Index(dataset, stream), Index(temporary.datasets[stream], stream)
            for file, row in zip(files, table, strict=True):
                checksums = []
                for either, key in ((index, row["key"]), (new_index, file.key)):
                    place = either.keys(range(len(either))).index(key)
                    checksums.append(either.frames(place, np.arange(either.lengths[place])).crc32.tolist())
                assert checksums[0] == checksums[1]


def test_an_interrupt_leaves_no_temporary_files(videos: Path, dataset: Dataset, temporary_folder: Path):
    files = given_files([str(next(videos.rglob("*.mp4")))])
    try:
        with temporary_datasets(files, {"rgb": dataset.spec("rgb")}, dataset.classes):
            assert list(temporary_folder.iterdir())
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert list(temporary_folder.iterdir()) == []


def test_different_versions_are_reported(videos: Path, dataset: Dataset, capsys: pytest.CaptureFixture[str]):
    files = given_files([str(next(videos.rglob("*.mp4")))])
    spec = dataset.spec("rgb")
    specs = {"rgb": replace(spec, settings={**spec.settings, "ffmpeg": "2.8"})}
    with temporary_datasets(files, specs, dataset.classes) as temporary:
        assert temporary.lengths() == ({"000000": 40}, 25.0)
    message = capsys.readouterr().err.replace("\n", " ")
    assert "the training data of the rgb stream was made with different versions: ffmpeg: 2.8 -> " in message


def test_untagged_video_has_the_colors_of_the_spec_of_each_run(tmp_path: Path, dataset: Dataset):
    color = "color=#c86432:s=1280x720:d=0.2,format=gbrp,scale=out_color_matrix=bt709:out_range=tv,format=yuv420p"
    ffmpeg("-f", "lavfi", "-i", f"{color},setparams=colorspace=unknown", *X264, tmp_path / "v.mp4")
    settings = Settings(short_side=64, jpeg_quality=100)
    specs = {
        "rgb": replace(settings, untagged_matrix="bt601").spec("rgb"),  # of a dataset without the entry
        "flow": settings.spec("flow"),
    }
    with temporary_datasets(given_files([str(tmp_path / "v.mp4")]), specs, dataset.classes) as temporary:
        assert {stream: dict(each.specs) for stream, each in temporary.datasets.items()} == {
            stream: {stream: spec} for stream, spec in specs.items()
        }
        assert abs(mean_color(temporary.datasets["rgb"]) - (191, 93, 53)).max() <= 3
    specs = {"rgb": settings.spec("rgb")}
    with temporary_datasets(given_files([str(tmp_path / "v.mp4")]), specs, dataset.classes) as temporary:
        assert abs(mean_color(temporary.datasets["rgb"]) - (200, 100, 50)).max() <= 3


def mean_color(dataset: Dataset) -> np.ndarray:
    """Return the mean RGB of the first frame of a dataset of one video."""
    (video,) = read_shard(dataset.storage, "rgb", "given-000000")
    picture = np.asarray(cv2.imdecode(np.frombuffer(video.frames[0], np.uint8), cv2.IMREAD_COLOR))
    return picture.mean((0, 1))[::-1]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ZeroDivisionError("division by zero"), "internal-error: ZeroDivisionError: division by zero (lgd/"),
        (OSError(errno.ESTALE, "Stale file handle"), "unreadable: Stale file handle"),
        (NodeError("ffmpeg was killed from outside by SIGKILL"), "unreadable: ffmpeg was killed from outside by SIGK"),
    ],
    ids=repr,
)
def test_an_error_in_one_file_rejects_this_file_alone(
    error: Exception, expected: str, videos: Path, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(path: Path, *arguments: Any, **options: Any) -> Frames:
        if path.name == "000001":
            raise error
        return decode(path, *arguments, **options)

    monkeypatch.setattr("lgd.preprocessing.encode.decode", fail)
    files = given_files([str(path) for path in sorted(videos.rglob("*.mp4"))[:3]])
    with temporary_datasets(files, {"rgb": dataset.spec("rgb")}, dataset.classes) as temporary:
        assert set(temporary.lengths()[0]) == {"000000", "000002"}
    assert temporary.rejected.keys() == {"000001"}
    assert str(temporary.rejected["000001"]).startswith(expected)


def test_a_folder_is_rejected_and_the_other_files_are_not(videos: Path, dataset: Dataset):
    files = given_files([str(videos), str(next(videos.rglob("*.mp4")))])
    with temporary_datasets(files, {"rgb": dataset.spec("rgb")}, dataset.classes) as temporary:
        assert set(temporary.lengths()[0]) == {"000001"}
    assert {key: str(each) for key, each in temporary.rejected.items()} == {
        "000000": "unreadable: it is a folder: give the files in it"
    }
