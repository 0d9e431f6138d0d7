import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from lgd.pipeline.console.errors import UsageError, UserError
from lgd.preprocessing.annotations.read import read_manifest
from tests.preprocessing.annotations.conftest import create_files, write_file


def test_a_fraction_of_each_class_becomes_the_validation_split(tmp_path: Path) -> None:
    create_files(tmp_path, *(f"{name}/{i}.mp4" for name in ("a", "b") for i in range(50)))
    counts = Counter((v.class_name, v.split) for v in read_manifest(tmp_path, val_fraction=0.3).videos)
    assert counts == {("a", "val"): 15, ("a", "train"): 35, ("b", "val"): 15, ("b", "train"): 35}


def test_small_classes_are_in_both_splits_if_they_have_two_videos(tmp_path: Path) -> None:
    two = read_manifest(create_files(tmp_path / "two", "a/1.mp4", "a/2.mp4", "b/3.mp4"))
    assert Counter((v.class_name, v.split) for v in two.videos) == {
        ("a", "val"): 1,
        ("a", "train"): 1,
        ("b", "train"): 1,
    }
    ones = read_manifest(create_files(tmp_path / "ones", "a/1.mp4", "b/2.mp4", "c/3.mp4"))
    assert Counter(v.split for v in ones.videos) == {"val": 1, "train": 2}
    nearly_all = read_manifest(tmp_path / "two", val_fraction=0.99)
    assert Counter((v.class_name, v.split) for v in nearly_all.videos)["a", "train"] == 1


def test_the_split_is_the_same_in_a_different_process(videos: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from lgd.preprocessing.annotations.read import read_manifest; "
        "print(read_manifest(Path(sys.argv[1])).fingerprint())"
    )
    prints = {
        subprocess.run(
            [sys.executable, "-c", script, str(videos)],
            cwd=Path(__file__).parents[3],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert prints == {read_manifest(videos).fingerprint()}


def test_a_group_is_in_one_split_across_all_classes(tmp_path: Path) -> None:
    create_files(
        tmp_path,
        *(f"{c}/s{s:02d}_{i}{flip}.avi" for c in "abc" for s in range(9) for i in "12" for flip in ("", "_flip")),
    )
    manifest = read_manifest(tmp_path, group=r"s\d+")
    sides: dict[str, set[str]] = {}
    for video in manifest.videos:
        sides.setdefault(Path(video.path).name[:3], set()).add(video.split)
    assert all(len(side) == 1 for side in sides.values())
    assert Counter(side for (side,) in sides.values()) == {"val": 2, "train": 7}


def test_group_1_of_the_expression_is_the_group(tmp_path: Path) -> None:
    create_files(tmp_path, *(f"c/take{i}_p{i % 2}.mp4" for i in range(10)))
    manifest = read_manifest(tmp_path, group=r"take\d+_(p\d)")
    assert Counter(v.split for v in manifest.videos) == {"val": 5, "train": 5}


def test_of_two_groups_one_is_in_train_and_one_in_val_for_every_fraction(tmp_path: Path) -> None:
    create_files(tmp_path, "c/a1.mp4", "c/a2.mp4", "c/b1.mp4", "c/b2.mp4")
    for fraction in (0.01, 0.99):
        assert Counter(v.split for v in read_manifest(tmp_path, None, "[ab]", val_fraction=fraction).videos) == {
            "val": 2,
            "train": 2,
        }


@pytest.mark.parametrize(
    ("group", "kind", "message"),
    [
        ("s(", UsageError, "is not a valid regular expression"),
        ("zzz", UserError, "does not match any file name"),
        ("^[ab]", UserError, "does not match c.webm (and 1 more)"),
        ("m?", UserError, "does not match any file name"),  # an empty match is no group
        (".$|(x)", UserError, "does not match any file name"),  # nor is a group that took no part
    ],
)
def test_a_group_expression_that_does_not_match_all_names_is_a_clear_error(
    videos: Path, group: str, kind: type, message: str
) -> None:
    with pytest.raises(kind) as error:
        read_manifest(videos, group=group)
    assert message in str(error.value)


def test_a_single_group_of_all_videos_is_a_clear_error(videos: Path) -> None:
    create_files(videos, "run/a2.mp4")
    file = write_file(videos, "path,label\njump/a.mp4,x\nrun/a2.mp4,x\n")
    with pytest.raises(UserError, match="at least two groups are required"):
        read_manifest(videos, file, group="a")


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1.0, float("nan")])
def test_a_fraction_outside_0_and_1_is_wrong_usage(videos: Path, fraction: float) -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        read_manifest(videos, val_fraction=fraction)
