"""The result of `lgd bench flow`. Times are not tested: they depend on the machine."""

import io
import shutil
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest
from rich.console import Console

from lgd.benchmarks import flow
from lgd.benchmarks.flow import Pair, SizeSummary, claims_not_met, summarize
from lgd.benchmarks.middlebury import EndPointErrors
from lgd.pipeline.console.errors import UserError
from tests.benchmarks.test_middlebury import write_pair

SIZES = {"64x48": (64, 48), "80x64": (80, 64)}


@pytest.fixture(autouse=True)
def _small_sizes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(flow, "SIZES", SIZES)
    monkeypatch.setattr(flow, "MIN_RATIO", {})


@pytest.fixture
def data(videos: Path, tmp_path: Path) -> Path:
    """A folder with two videos, a broken one, and a pair."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("up", "spin"):
        shutil.copy(videos / name / f"{name}_000.mp4", folder)
    (folder / "broken.mp4").write_bytes(b"text, not video" * 50)
    write_pair(folder / "pairs" / "shift")
    return folder


def test_the_document_has_one_row_per_video_and_consistent_numbers(data: Path):
    benchmark = flow.run(data, videos=3, pairs=2)
    result = benchmark.document()
    for size in SIZES:
        rows = result[size]["videos"]
        assert [row["video"] for row in rows] == ["spin_000.mp4", "up_000.mp4"]
        for row in (result[size], *rows):
            assert {"opencv_ms", "numba_ms", "ratio", "motion_px", "mean_difference_px"} <= row.keys()
        for name in ("motion_px", "mean_difference_px"):
            assert result[size][name] == pytest.approx(sum(row[name] for row in rows) / len(rows))
        ratios = [row["ratio"] for row in rows]
        assert min(ratios) <= result[size]["ratio"] <= max(ratios)
        assert sum(result["stages"][size].values()) == pytest.approx(1)
        assert all(share > 0 for share in result["stages"][size].values())
    assert [(row["video"], row["reason"]) for row in result["left_out"]] == [("broken.mp4", "unreadable")]
    assert result["middlebury"]["shift"].keys() == {"opencv_epe", "numba_epe"}
    assert max(result["middlebury"]["shift"].values()) < 0.1
    assert result["failed"] == []
    assert benchmark.failed == ""
    console = Console(file=io.StringIO(), width=200)
    for line in benchmark.lines():
        console.print(line)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for shown in ("spin_000.mp4", "left out: broken.mp4 (unreadable", "64x48", "shift"):
        assert shown in text


def test_without_middlebury_pairs_the_document_lacks_their_section(data: Path):
    shutil.rmtree(data / "pairs")
    result = flow.run(data, videos=3, pairs=1)
    assert "middlebury" not in result.document()
    assert any(isinstance(line, str) and "no end-point errors" in line for line in result.lines())


def test_a_folder_without_usable_videos_is_a_user_error(tmp_path: Path):
    with pytest.raises(UserError, match="nowhere"):
        flow.run(tmp_path / "nowhere", videos=1, pairs=1)
    with pytest.raises(UserError, match="contains no videos"):
        flow.run(tmp_path, videos=1, pairs=1)
    (tmp_path / "empty.mp4").write_bytes(b"")
    with pytest.raises(UserError, match=r"none of 1 videos in .* can be used; empty\.mp4: the file is empty"):
        flow.run(tmp_path, videos=1, pairs=1)


def test_a_summary_is_the_median_of_ratios_and_the_mean_of_lengths():
    pairs = [Pair(opencv_s=o, numba_s=n, motion_px=o, difference_px=n) for o, n in ((8, 1), (6, 2), (100, 4))]
    summary = summarize(pairs)
    assert summary.ratio == median([8, 3, 25])
    assert (summary.opencv_ms, summary.numba_ms) == (8000, 2000)
    assert summary.motion_px == 38
    assert summary.mean_difference_px == pytest.approx(7 / 3)


def test_claims_that_are_not_met_are_listed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(flow, "MIN_RATIO", {"64x48": 8})
    good = Pair(opencv_s=9, numba_s=1, motion_px=1, difference_px=0.05)

    def at_64x48(pair: Pair) -> dict[str, SizeSummary]:
        return {"64x48": SizeSummary(**vars(summarize([pair])), videos=[])}

    assert claims_not_met(at_64x48(good), {"Venus": EndPointErrors(0.5, 0.509)}) == []
    slow = at_64x48(replace(good, opencv_s=7, difference_px=0.2))
    assert claims_not_met(slow, {"Venus": EndPointErrors(0.5, 0.511)}) == [
        "64x48: 7.0 times as fast as OpenCV (required: 8)",
        "64x48: mean difference of 0.200 px from OpenCV's flow (maximum: 0.1)",
        "Venus: end-point error of 0.511 px (OpenCV: 0.500)",
    ]
    assert claims_not_met(at_64x48(good), {}) == []
