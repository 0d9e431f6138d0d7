"""The benchmark of a GPU without a GPU: verdicts, table, JSON file, parts that fail, resuming."""

import io
import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from lgd.benchmarks.gpu import child, command, flow, train
from lgd.benchmarks.gpu.command import machine_line, main, problems, rows_of, run, table_of
from lgd.benchmarks.gpu.parts import PARTS, Part
from lgd.benchmarks.gpu.rows import COPY, PRODUCT, Measured, Row, goals_of, measured_of, row_of
from lgd.pipeline.console.errors import UserError
from lgd.pipeline.loading.transform import Transform
from lgd.preprocessing.flow import tvl1
from lgd.preprocessing.flow.tvl1 import compute_codes, compute_flow
from lgd.training import recipes
from lgd.training.recipes import recipe_named

MACHINE = {"card": "NVIDIA H100 80GB HBM3", "driver": "580.65.06", "torch": "2.13.0", "cuda": "13.0", "dali": None}
THREE = [Part("copy", ""), Part("train", ""), Part("flow", "")]
FIGURES = {
    "copy": Row(COPY, 3.0, "TB/s", 3.35, 2.8),
    "train": Row("train, eager, 64 clips", 700.0, "clips/s", 717.0, 820.0),
    "flow": Row("cost", 0.01, "of a step", None, 0.02, lower_is_better=True),
}


class FakeGpu:
    """Measures parts without a GPU. failing: parts that fail. calls: what was measured, and with which rows before."""

    def __init__(self, *failing: str, machine: dict[str, Any] = MACHINE, stop_at: str = ""):
        self.failing, self.machine, self.stop_at = failing, machine, stop_at
        self.calls: list[tuple[str, list[str]]] = []

    def probe(self) -> dict[str, Any]:
        return dict(self.machine)

    def measure(self, part: Part, measured: Measured, limit_s: float) -> dict[str, Any]:
        if part.name == self.stop_at:
            raise KeyboardInterrupt
        assert 0 < limit_s <= part.limit_s
        self.calls.append((part.name, [row.name for row in measured.rows]))
        if part.name in self.failing:
            raise UserError(f"{part.name} could not be measured: its process was ended by SIGSEGV")
        return {"rows": [FIGURES[part.name].document()]}

    def run(self, out: Path, **options: Any) -> dict[str, Any]:
        return run(out, parts=THREE, probe=self.probe, measure=self.measure, **options)

    @property
    def parts(self) -> list[str]:
        return [name for name, _ in self.calls]


@pytest.mark.parametrize(
    ("figure", "goal", "lower", "verdict"),
    [
        (820.0, 820.0, False, "met"),
        (819.9, 820.0, False, "missed"),
        (0.02, 0.02, True, "met"),
        (0.021, 0.02, True, "missed"),
        (1.0, None, False, "no goal"),
        (None, 1.0, False, "not measured"),
        (math.nan, 1.0, False, "not measured"),
        (math.inf, 1.0, False, "not measured"),
    ],
)
def test_verdict(figure: float | None, goal: float | None, lower: bool, verdict: str):
    document = Row("x", figure, "s", goal=goal, lower_is_better=lower).document()
    assert document["verdict"] == verdict
    assert row_of(json.loads(json.dumps(document, allow_nan=False))).verdict == verdict


def test_figures_of_the_card_are_those_measured_or_else_those_of_the_data_sheet():
    fresh = Measured("NVIDIA H200", [])
    assert (fresh.bytes_per_s, fresh.flops, fresh.clips_per_s) == (4.8e12, 989e12, None)
    rows = [Row(COPY, 4.3, "TB/s"), Row(PRODUCT, 790.0, "TFLOP/s"), FIGURES["train"], Row("train, x", 5.0, "clips/s")]
    later = measured_of(json.loads(json.dumps(Measured("NVIDIA H200", rows).document())))
    assert (later.bytes_per_s, later.flops, later.clips_per_s) == (4.3e12, 790e12, 700.0)
    assert Measured("Unknown", []).bytes_per_s is None
    assert goals_of("NVIDIA H100 PCIe") is None


def test_the_file_and_the_table_have_every_figure_although_a_part_failed(tmp_path: Path):
    out = tmp_path / "gpu.json"
    fake = FakeGpu("train")
    document = fake.run(out)
    assert document == json.loads(out.read_text())
    assert document["complete"]
    assert document["machine"] == MACHINE
    assert fake.calls == [("copy", []), ("train", [COPY]), ("flow", [COPY, "train"])]
    assert document["parts"]["copy"]["rows"][0]["verdict"] == "met"
    rows = rows_of(document["parts"])
    assert [row.verdict for row in rows] == ["met", "not measured", "met"]
    assert problems(rows) == "not measured: train"
    text = io.StringIO()
    Console(file=text, width=160).print(table_of([*rows, FIGURES["train"]]))
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.getvalue().splitlines() if "│" in line]
    assert lines[0] == [COPY, "3 TB/s", "3.35", "90%", "2.8", "met"]
    assert lines[1][-1].endswith("its process was ended by SIGSEGV")
    assert lines[2] == ["cost", "0.01 of a step", "", "", "at most 0.02", "met"]
    assert lines[3] == ["train, eager, 64 clips", "700 clips/s", "717", "98%", "820", "missed"]
    assert problems([FIGURES["train"]]) == "goals missed: train, eager, 64 clips"
    assert machine_line(MACHINE).startswith(
        "NVIDIA H100 80GB HBM3: driver 580.65.06, torch 2.13.0, cuda 13.0, dali mis"
    )


def test_a_killed_run_keeps_what_it_has_and_a_rerun_measures_the_rest(tmp_path: Path):
    out = tmp_path / "gpu.json"
    with pytest.raises(KeyboardInterrupt):
        FakeGpu("copy", stop_at="flow").run(out)
    kept = json.loads(out.read_text())
    assert list(kept["parts"]) == ["copy", "train"]
    assert not kept["complete"]
    again = FakeGpu()
    document = again.run(out)
    assert again.parts == ["copy", "flow"]  # the one that failed, and the one that is missing
    assert document["complete"]
    assert document["parts"]["train"] == kept["parts"]["train"]
    anew = FakeGpu()
    anew.run(out)
    assert anew.parts == ["copy", "train", "flow"]
    assert list(tmp_path.iterdir()) == [out]


def test_figures_of_a_different_machine_are_not_kept(tmp_path: Path):
    out = tmp_path / "gpu.json"
    with pytest.raises(KeyboardInterrupt):
        FakeGpu(stop_at="flow").run(out)
    other = FakeGpu(machine={**MACHINE, "driver": "590.1"})
    other.run(out)
    assert other.parts == ["copy", "train", "flow"]


def test_what_does_not_fit_into_the_time_is_measured_by_a_rerun(tmp_path: Path):
    out = tmp_path / "gpu.json"
    document = FakeGpu().run(out, limit_s=1.0)
    assert not document["complete"]
    assert [row.note for row in rows_of(document["parts"])] == [command.NOT_IN_TIME] * 3
    assert FakeGpu().run(out)["complete"]


@pytest.mark.parametrize(
    "content", ["", "[]", '{"loss": 1}', '{"complete": false, "machine": {}, "parts": {"copy": 1}}']
)
def test_a_different_file_is_not_overwritten(content: str, tmp_path: Path, capsys: pytest.CaptureFixture):
    out = tmp_path / "results.json"
    out.write_text(content)
    assert main(["--out", str(out)]) == 1
    assert "is a different file" in capsys.readouterr().err
    assert out.read_text() == content


def test_an_output_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture):
    with pytest.raises(UserError, match=r"cannot be written \(No such file or directory\)"):
        FakeGpu().run(tmp_path / "missing" / "gpu.json")
    assert main(["--out", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err


def test_without_a_gpu_there_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setattr(command, "run_isolated", lambda module, *words, **options: child.answer(list(words)))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["--out", str(tmp_path / "gpu.json")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("lgd: PyTorch ")
    assert "cannot use the GPU" in error
    assert error.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_a_missing_package_and_an_error_are_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    missing = ModuleNotFoundError("No module named 'nvidia.dali'", name="nvidia.dali")
    assert child.reason_of(missing) == "the Python package nvidia.dali is not installed"
    assert child.reason_of(UserError("install it")) == "install it"
    assert child.reason_of(RuntimeError("CUDA error\nmore")) == "RuntimeError: CUDA error"
    assert child.reason_of(ValueError()) == "ValueError"
    assert child.answer(["decoding", json.dumps(Measured("", []).document())]) == {
        "error": "the Python package nvidia.dali is not installed"
    }


def test_the_parts_exist_and_fit_into_the_time():
    assert len({part.name for part in PARTS}) == len(PARTS)
    for part in PARTS:
        module, _, name = part.function.partition(":")
        assert callable(getattr(__import__(module, fromlist=[name]), name))
    assert command.LIMIT_S + command.PROBE_LIMIT_S < 11 * 60


@pytest.mark.parametrize(("card", "eager", "fused", "goal"), [("H100 80GB", 717, 1020, 820), ("H200", 976, 1358, 1090)])
def test_bounds_of_the_training_step(card: str, eager: float, fused: float, goal: float):
    """Those of the roofline: 3.0 and 4.3 TB/s, 790 TFLOP/s."""
    copied = Row(COPY, 3.0 if card == "H100 80GB" else 4.3, "TB/s")
    measured = Measured(f"NVIDIA {card}", [copied, Row(PRODUCT, 790.0, "TFLOP/s")])
    assert train.bound(measured, fused=False) == pytest.approx(eager, rel=0.005)
    assert train.bound(measured, fused=True) == pytest.approx(fused, rel=0.005)
    steps = [Row(f"train, {name}, 64 clips", figure, "clips/s") for name, figure in (("a", 700.0), ("b", goal))]
    (best,) = train.fastest(Measured(measured.card, [copied, *steps, Row("train, x, 8 clips", 9e9, "clips/s")]))
    assert (best.figure, best.goal, best.verdict, best.note) == (goal, goal, "met", "train, b, 64 clips")
    with pytest.raises(UserError, match="no training step"):
        train.fastest(Measured(measured.card, [Row("train, a, 64 clips", None, "clips/s"), *steps[:0]]))
    (other,) = train.fastest(Measured("NVIDIA L40S", steps))
    roof = train.bound(Measured("NVIDIA L40S", []), fused=True)
    assert roof
    assert other.goal == pytest.approx(0.8 * roof)


def test_bounds_of_the_flow():
    h100 = Measured("NVIDIA H100 80GB", [Row(COPY, 3.0, "TB/s")])
    assert flow.bound(h100, 160, 120) == pytest.approx(32_000, rel=0.01)
    assert flow.bound(h100, 340, 256) == pytest.approx(6_620, rel=0.01)
    assert flow.bound(Measured("Unknown", []), 160, 120) is None


@pytest.mark.parametrize("variant", ["eager", "2d"])
def test_the_measured_step_is_that_of_training(variant: str, monkeypatch: pytest.MonkeyPatch):
    small = replace(recipe_named("nano-rgb"), transform=Transform(crop=32))
    monkeypatch.setattr(recipes, "recipe_named", lambda name: small)
    network, step, notes = train.prepare(variant, 2, torch.device("cpu"))
    before = [parameter.clone() for parameter in network.parameters()]
    step()
    assert all(not torch.equal(old, new) for old, new in zip(before, network.parameters(), strict=True))
    assert notes == []


def test_the_frames_of_the_flow_move_and_their_pairs_are_counted(monkeypatch: pytest.MonkeyPatch):
    def on_cpu(clips: Any, *, backend: str, device: str, bound: float) -> Any:
        assert (backend, device) == ("torch", "cuda")
        return compute_codes(clips, backend="opencv", bound=bound)

    frames = flow.moving_frames(3, 48, 64)
    assert frames.shape == (3, 48, 64)
    assert 1 < np.abs(compute_flow(frames, backend="opencv")).mean() < 10
    monkeypatch.setattr(tvl1, "compute_codes", on_cpu)
    assert flow.pairs_of([frames, frames[:2]], "cuda") == 3
