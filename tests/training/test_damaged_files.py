"""Every file of a run and every score file, damaged or forged: read as before, or refused with one line that names it;
never a traceback, a signal or a hang.

LGD_MUTATIONS=2000 pytest -s tests/training/test_damaged_files.py tries 2000 random mutations per kind."""

import io
import json
import random
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from lgd.pipeline.dataset.dataset import Dataset
from lgd.training import checkpoint
from lgd.training.fusion.comparison import fuse_and_compare
from lgd.training.models.weights import read_state
from lgd.training.models.zoo import build, count
from lgd.training.report import plots
from lgd.training.report.inputs import fingerprint_of, read_inputs
from lgd.training.report.results import group_scores
from lgd.training.report.sections import scores_section
from lgd.training.run import ERROR, FAILURE, RESULT, STARTS, begin_run, open_run
from lgd.training.scoring.inference import load_checkpoint, load_network
from lgd.training.scoring.scores import Scores, identity_of, read_scores, write_scores
from lgd.training.side_files import BEST, read_message, read_starts
from tests.support.mutations import MUTATIONS, Kind, mutate_bytes, mutate_json, named_json, read_mutated, table
from tests.training.test_run import NANO

STEP, CPU = 3, torch.device("cpu")
NAME = checkpoint.checkpoint_name(STEP)
# Kinds whose content has checksums: a random change is noticed.
CHECKSUMS = {"checkpoint", "scores", "weights.pth"}


def read_config(folder: Path) -> Any:
    run = open_run(str(folder))
    size = count(run.config.model, len(run.classes), 3)
    return run.config, run.classes, run.fingerprint, run.config.steps(100), size


def read_checkpoint(folder: Path) -> Any:
    """What resuming and evaluating do with it."""
    run = open_run(str(folder))
    content = checkpoint.load(run, NAME)
    network = load_network(run, content["model"], CPU, weights_name=NAME)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    checkpoint.restore(run, content, network, optimizer=optimizer)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return content["step"], {name: value.numpy().tobytes() for name, value in network.state_dict().items()}


def read_best(folder: Path) -> Any:
    return load_checkpoint(open_run(str(folder)), "best")["step"]


def read_result(folder: Path) -> Any:
    return open_run(str(folder)).result()


def read_side_file(name: str) -> Callable[[Path], Any]:
    return {STARTS: _read_starts, ERROR: _read_error, FAILURE: _read_failure}[name]


def _read_starts(folder: Path) -> Any:
    return read_starts(open_run(str(folder)).storage)


def _read_error(folder: Path) -> Any:
    return read_message(open_run(str(folder)).storage, ERROR)


def _read_failure(folder: Path) -> Any:
    return read_message(open_run(str(folder)).storage, FAILURE)


def read_the_metrics(folder: Path) -> Any:
    inputs = read_inputs([str(folder)], None)
    history = inputs.runs[0].history
    return history.steps, history.workers, history.messages, sorted(history.curves)


def read_score_file(folder: Path) -> Any:
    """What evaluation, fusion and the report do with it."""
    path, fused = str(folder / "scores.parquet"), str(folder / "fused.parquet")
    identity_of(path)
    scores = read_scores(path)
    inputs = read_inputs([path, fused], None)
    plots.reliability = plots.gains = lambda *_: None  # type: ignore[assignment]  # in this child process: slow
    for group in group_scores(inputs.scores, inputs.score_names, inputs.series()):
        scores_section(group, inputs, [])
    for each in inputs.scores:
        fingerprint_of(each)
    fuse_and_compare([path, fused])
    return scores.keys, scores.labels.tolist(), scores.probabilities.tobytes(), scores.classes, scores.metadata


def read_safetensors(folder: Path) -> Any:
    return {name: value.numpy().tobytes() for name, value in read_state(folder / "weights.safetensors").items()}


def read_pth(folder: Path) -> Any:
    return {name: value.numpy().tobytes() for name, value in read_state(folder / "weights.pth").items()}


def saved(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def named_torch(content: bytes) -> dict[str, bytes]:
    """Forged checkpoints with correct checksums."""
    valid = torch.load(io.BytesIO(content), weights_only=True)
    named = {"empty": b"", "text": b"text" * 99, "only an end": content[-22:], "cut off": content[: len(content) // 2]}
    weight = "res2.0.unit.reduce.conv.weight"
    tensors = {
        "NaN": torch.full_like(valid["model"][weight], float("nan")),
        "infinite": torch.full_like(valid["model"][weight], -float("inf")),
        "a view of any size": torch.zeros(1).expand(1 << 40),
        "another shape": torch.zeros(3),
        "whole numbers": valid["model"][weight].long(),
        "complex": valid["model"][weight].to(torch.complex64),
        "half": valid["model"][weight].half(),
        "sparse": torch.zeros(4, 4).to_sparse(),
        "meta": torch.empty(1 << 40, device="meta"),
        "a list": [1.0],
        "text": "text",
        "None": None,
    }
    for name, tensor in tensors.items():
        named[f"weight is {name}"] = saved({**valid, "model": {**valid["model"], weight: tensor}})
        momentum = {**valid["optimizer"]["state"], 0: {"momentum_buffer": tensor}}
        named[f"momentum is {name}"] = saved({**valid, "optimizer": {**valid["optimizer"], "state": momentum}})
    for field in valid:
        named[f"without {field}"] = saved({name: value for name, value in valid.items() if name != field})
        wrong: tuple[Any, ...] = (None, -1, 1 << 62, 0.5, "text", [], {}, True, {"x": {}}, torch.zeros(2))
        for value in wrong:
            named[f"{field} is {str(value)[:10]}"] = saved({**valid, field: value})
    groups: list[Any] = [None, [], [{}], [{"params": [5]}], [{"params": "x"}], [1], "text"]
    for number, value in enumerate(groups):
        named[f"groups {number}"] = saved({**valid, "optimizer": {**valid["optimizer"], "param_groups": value}})
    options = {**valid["optimizer"]["param_groups"][0], "momentum": "much", "lr": float("nan"), "nesterov": []}
    named["options"] = saved({**valid, "optimizer": {**valid["optimizer"], "param_groups": [options]}})
    for number, text in enumerate(("", "{", "[]", "{}", "[" * 100_000, '{"data": {"classes": [1]}}', '{"data": 1}')):
        named[f"run {number}"] = saved({**valid, "run": text})
    nested: Any = []
    for _ in range(150):
        nested = [nested]
    named["nested lists"] = saved({**valid, "more": nested})
    named["a bomb"] = rezipped(content, zipfile.ZIP_DEFLATED)
    named["another step"] = saved({**valid, "step": STEP + 1, "position": (STEP + 1) * NANO.batch_size})
    named["another position"] = saved({**valid, "position": 7})
    return named


def rezipped(content: bytes, compression: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w", compression) as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member) + bytes(1 << 20) * member.filename.endswith("/data/0"))
    return buffer.getvalue()


def named_scores(content: bytes) -> dict[str, bytes]:
    """Forged score files with the right structure."""
    rows = pq.read_table(pa.BufferReader(content))
    header = json.loads(rows.schema.metadata[b"lgd"])
    named = {"empty": b"", "another format": b"ARROW1" + content, "only the magic": b"PAR1PAR1"}

    def add(name: str, changed: pa.Table, metadata: Any = header) -> None:
        sink = pa.BufferOutputStream()
        text = metadata if isinstance(metadata, bytes) else json.dumps(metadata).encode()
        pq.write_table(changed.replace_schema_metadata({"lgd": text}), sink)
        named[name] = sink.getvalue().to_pybytes()

    add("no rows", rows.slice(0, 0))
    add("rows twice", pa.concat_tables([rows, rows]))
    lengths = [[0.5, 0.5], [0.25, 0.25, 0.25, 0.25], *rows["probabilities"].to_pylist()[2:]]
    add("lengths", rows.set_column(2, "probabilities", pa.array(lengths, pa.list_(pa.float32()))))
    for number, column in enumerate(rows.column_names):
        add(f"without {column}", rows.drop_columns([column]))
        others = {"nulls": pa.nulls(len(rows)), "text": ["x"] * len(rows), "numbers": range(len(rows)),
                  "bytes": [b"\xff"] * len(rows), "lists": [[1]] * len(rows), "texts": [["x"] * 3] * len(rows),
                  "negative": [-7] * len(rows), "large": [1 << 40] * len(rows)}  # fmt: skip
        for name, values in others.items():
            add(f"{column} of {name}", rows.set_column(number, column, pa.array(values)))
    for text in (b"", b"{", b"[]", b"{}", b"[" * 100_000, b'{"format": "lgd-scores", "version": 1}'):
        add(f"metadata {text[:20]!r}", rows, text)
    for field in header:
        add(f"metadata without {field}", rows, {name: value for name, value in header.items() if name != field})
        for value in (None, 1, "text", [], {}, [1], ["a", "a", "a"], {"x": 1}, -1):
            add(f"{field} is {value}", rows, {**header, field: value})
    for field in ("stream", "run", "data", "inputs", "weights", "temperatures", "fingerprint", "name", "recipe"):
        wrong: tuple[Any, ...] = (1, [], [1], {}, ["x"], "", "x\0y", [{"inputs": 1}], [{}] * 3, 1e300, "fused")
        for other in wrong:
            about = {**header["about"], "stream": "fused", field: other}
            add(f"about: {field} is {str(other)[:9]!r}", rows, {**header, "about": about})
    return named


def mutate_scores(content: bytes, numbers: random.Random) -> bytes:
    """Damage the bytes, or the metadata of a valid file."""
    if numbers.random() < 0.5:
        return mutate_bytes(content, numbers)
    rows = pq.read_table(pa.BufferReader(content))
    sink = pa.BufferOutputStream()
    pq.write_table(rows.replace_schema_metadata({"lgd": mutate_json(rows.schema.metadata[b"lgd"], numbers)}), sink)
    return sink.getvalue().to_pybytes()


def mutate_line(content: bytes, numbers: random.Random) -> bytes:
    lines = content.split(b"\n")
    number = numbers.randrange(len(lines) - 1)
    lines[number] = mutate_json(lines[number], numbers)
    return b"\n".join(lines)


@pytest.fixture
def folder(tmp_path: Path, empty_dataset: Dataset) -> Path:
    """A run with every file, two score files and files of weights."""
    folder = tmp_path / "run"
    run = begin_run(str(folder), "nano-rgb", NANO, dataset=empty_dataset)
    torch.manual_seed(0)
    network = build(NANO.model, 2, 3)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    for parameter in network.parameters():
        parameter.grad = torch.rand_like(parameter)
    optimizer.step()
    writer = checkpoint.CheckpointWriter(run)
    writer.save(STEP, network, optimizer, best_top1=0.5)
    writer.close()
    lines = [
        {"step": 0, "say": "weights"},
        {"step": 1, "epoch": 0.5, "loss": 2.0, "loss_local": 1.0, "top1": 0.5, "step_s": 0.1, "data_wait": 0.1,
         "clips_per_s": 9.5, "rate": 0.1, "workers": 2, "losses": [2.0], "time": 1.0},
        {"step": 1, "resumed": True},
        {"step": 3, "epoch": 1.5, "loss": 1.0, "workers": 1, "rate": 0.1},
        {"step": 3, "val_top1": 0.5, "val_top5": 1.0, "val_videos": 4},
    ]  # fmt: skip
    files: dict[str, Any] = {
        RESULT: {"steps": STEP, "val_top1": 0.5, "val_top5": 1.0, "val_videos": 4},
        STARTS: {"launch": "x", "checkpoint": NAME, "starts": 2},
        ERROR: {"launch": "x", "message": "text"},
        FAILURE: {"launch": "x", "message": "text"},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    probabilities = np.random.default_rng(0).dirichlet(np.ones(3), 6).astype(np.float32)
    about = {"stream": "rgb", "run": str(folder), "clips": 3, "fingerprint": "f" * 16, "step": STEP}
    scores = Scores("", [f"v{i}" for i in range(6)], np.arange(6) % 3, probabilities, ("a", "b", "c"), "val", about)
    write_scores(str(folder / "scores.parquet"), scores)
    fused = {"stream": "fused", "inputs": [{"name": "scores.parquet", **about}, about], "weights": [0.5, 0.5]}
    write_scores(str(folder / "fused.parquet"), replace(scores, metadata=fused))
    weights = {"conv1.weight": torch.rand(4, 3, 7, 7), "fc.bias": torch.rand(5)}
    torch.save(weights, folder / "weights.pth")
    from safetensors.torch import save_file

    save_file(weights, folder / "weights.safetensors")
    return folder


def kinds_of(folder: Path) -> dict[str, Kind]:
    def kind(name: str, mutate: Any, read: Any, named: Callable[[bytes], dict[str, bytes]]) -> Kind:
        return Kind(folder / name, mutate, read, named((folder / name).read_bytes()))

    side_files = {name: kind(name, mutate_json, read_side_file(name), named_json) for name in (STARTS, ERROR, FAILURE)}
    return {
        "config.json": kind("config.json", mutate_json, read_config, named_json),
        "checkpoint": kind(NAME, mutate_bytes, read_checkpoint, named_torch),
        "best.json": kind(BEST, mutate_json, read_best, named_json)._replace(other="step-"),
        "result.json": kind(RESULT, mutate_json, read_result, named_json),
        **side_files,
        "metrics.jsonl": kind("metrics.jsonl", mutate_line, read_the_metrics, lambda _: {}),
        "scores": kind("scores.parquet", mutate_scores, read_score_file, named_scores),
        "weights.pth": kind("weights.pth", mutate_bytes, read_pth, lambda _: {}),
        "weights.safetensors": kind("weights.safetensors", mutate_bytes, read_safetensors, lambda _: {}),
    }


def test_a_damaged_file_is_read_as_before_or_refused_with_one_line(folder: Path):
    kinds = kinds_of(folder)
    outcomes = read_mutated(folder, kinds, MUTATIONS or 6)
    print("\n" + table(outcomes))
    wrong = [each for each in outcomes if each.text not in ("same", "refused", "different")]
    assert wrong == [], table(wrong) + "\n" + wrong[0].detail
    changed = [each for each in outcomes if each.text == "different" and each.mutation.isdigit()]
    assert [each for each in changed if each.kind in CHECKSUMS - {"scores"}] == []
    used = [each.mutation for each in outcomes if each.kind == "checkpoint" and each.text == "different"]
    assert used == ["momentum is None"]  # the optimizer begins a new one
