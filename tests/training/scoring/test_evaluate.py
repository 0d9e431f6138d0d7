"""`lgd evaluate` as a user runs it: on several workers, with several batch sizes, killed, resumed, refused."""

import json
import shutil
import sys
import tarfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from rich.table import Table

from lgd.clusters.testbed.processes import ProcessTree, kill, run_lgd, run_lgd_until
from lgd.pipeline.console.errors import UserError
from lgd.pipeline.dataset.dataset import Dataset
from lgd.pipeline.dataset.index import Index
from lgd.pipeline.dataset.index_format import SCHEMA, index_writer
from lgd.pipeline.dataset.split_table import SplitCounts
from lgd.pipeline.loading.reader import ClipReader
from lgd.pipeline.storage.lock import locked
from lgd.pipeline.storage.storage import Storage
from lgd.training.run import Run, open_run
from lgd.training.scoring import evaluate
from lgd.training.scoring.chunk_plan import standard_chunks
from lgd.training.scoring.evaluate import EvaluateResult
from lgd.training.scoring.inference import load_checkpoint
from lgd.training.scoring.metrics import summary
from lgd.training.scoring.protocol import CheckpointChoice, ScoringResources, TestProtocol
from lgd.training.scoring.scores import identity_of, read_scores, score_table
from tests.training.scoring.random_run import CONFIG, network_of, score_in_process

VERSION_0_1 = Path(__file__).parents[2] / "compatibility" / "v0.1" / "files.tar.xz"


def command(run: Run, data: object, out: object, *more: object) -> tuple[object, ...]:
    return ("evaluate", run.storage.root, "--data", data, "--out", out, *more)


@pytest.mark.usefixtures("joined")
def test_scores_do_not_depend_on_the_number_of_workers_and_the_batch_size(
    run: Run, dataset: Dataset, expected: np.ndarray, tmp_path: Path
):
    for batch_size in (1, 5):
        videos = score_in_process(run, dataset, "train", protocol=TestProtocol(3), batch_size=batch_size)
        np.testing.assert_allclose([video.probabilities for video in videos], expected, atol=1e-5)
    out = tmp_path / "new" / "rgb.parquet"
    words = command(run, dataset.storage.root, out, "--split", "train", "--num-workers", 2, "--batch-size", 5, "--json")
    done = run_lgd(*words)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["videos"], document["parts_made"], document["parts_there"]) == (12, 12, 0)
    assert 0 <= document["top1"] <= 1
    scores = read_scores(str(out))
    np.testing.assert_allclose(scores.probabilities, expected, atol=1e-5)
    index = Index(dataset, "rgb")
    rows = index.rows("train")
    assert scores.keys == index.keys(rows)
    assert scores.labels.tolist() == index.labels[rows].tolist()
    assert scores.metadata == {
        "stream": "rgb",
        "model": "lgd3d_nano",
        "recipe": "nano-rgb",
        "run": run.storage.base,
        "step": 2,
        "checkpoint": "checkpoints/step-00000002.pt",
        "protocol": "3 uniform clips of 16 whole frames",
        "clips": 3,
        "crops": 1,
        "frames": 16,
        "precision": "float32",
        "data": dataset.storage.base,
        "data_recipe": dataset.spec("rgb").hash,
        "fingerprint": dataset.fingerprint,
    }
    assert [path.name for path in out.parent.iterdir()] == ["rgb.parquet"]

    before = out.stat()
    again = run_lgd(*command(run, dataset.storage.root, out, "--split", "train", "--batch-size", 2, "--json"))
    assert again.returncode == 0, again.stderr
    assert "is complete already (12 videos, 3 uniform clips of 16 whole frames): nothing to do" in again.stderr
    assert (json.loads(again.stdout)["top1"], json.loads(again.stdout)["parts_made"]) == (document["top1"], 0)
    assert (out.stat().st_mtime_ns, out.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


@pytest.mark.cluster
def test_a_killed_evaluation_resumes_with_the_missing_chunks_and_writes_the_same_scores(
    run: Run, dataset: Dataset, expected: np.ndarray, tmp_path: Path
):
    out, chunks = tmp_path / "rgb.parquet", tmp_path / "rgb.parquet.parts"
    out.write_text("the previous scores")
    words = command(run, dataset.storage.root, out, "--split", "train", "--workers", 1)

    def existing() -> dict[str, int]:
        return {path.name: path.stat().st_ino for path in chunks.glob("[0-9a-f]*.parquet")}

    def wait(ready: Callable[[], object], process: ProcessTree) -> None:
        deadline = time.monotonic() + 300
        while not ready():
            assert process.process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.005)

    run_lgd_until(lambda: len(existing()) >= 3, *words, "--batch-size", 1)
    assert out.read_text() == "the previous scores"
    kept = existing()
    assert 3 <= len(kept) < 12
    (chunks / ("0" * 16 + "-000000.parquet")).write_text("of a different evaluation")
    (chunks / "mine.txt").write_text("a file of the user")

    second = ProcessTree(sys.executable, "-m", "lgd", *words, "--json", log=tmp_path / "log")
    wait(lambda: len(existing()) > len(kept) + 1 and second.pids("ray::score_chunk"), second)
    for pid in second.pids("ray::score_chunk"):
        kill(pid)
    after_kill = existing()
    assert len(after_kill) < 12
    assert after_kill.items() >= kept.items()  # the same files
    second.process.wait(timeout=300)
    log = (tmp_path / "log").read_text()
    assert second.process.returncode == 0, log
    assert f"{len(kept)} of 12 score chunks already exist" in log
    assert f"score chunks to compute: {12 - len(kept)}, on CPUs" in log
    assert "1 score chunks of a different evaluation" in log
    assert f'"parts_made": {12 - len(kept)}' in log
    np.testing.assert_allclose(read_scores(str(out)).probabilities, expected, atol=1e-5)
    assert [path.name for path in chunks.iterdir()] == ["mine.txt"]


@pytest.mark.usefixtures("joined")
def test_three_crops_and_the_optional_columns(run: Run, dataset: Dataset, tmp_path: Path):
    out = tmp_path / "rgb.parquet"
    options = ("--clips", 2, "--crops", 3, "--keep", "clips", "features", "--checkpoint", "best", "--batch-size", 4)
    done = run_lgd(*command(run, dataset.storage.root, out, *options))
    assert done.returncode == 0, done.stderr
    assert "2 uniform clips of 16 frames, 3 square crops each" in done.stdout
    table, scores = pq.read_table(out), read_scores(str(out))
    assert scores.metadata["step"] == 1
    names = ("clip_probabilities", "local_features", "global_features")
    views = {name: np.array(table.column(name).to_pylist(), np.float32) for name in names}
    np.testing.assert_allclose(views["clip_probabilities"].mean(1), scores.probabilities, atol=1e-6)

    network, index = network_of(run, "best"), Index(dataset, "rgb")
    mean, std = np.array(CONFIG.transform.mean), np.array(CONFIG.transform.std)
    for number, row in enumerate(index.rows("val")[:2]):
        assert (index.heights[row], index.widths[row]) == (64, 80)
        crops = []
        for start in (0, index.lengths[row] - 16):
            jpegs = ClipReader(index).read(row, np.arange(start, start + 16))
            frames = [np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR)) for jpeg in jpegs]
            video = (np.stack(frames)[..., ::-1] - mean) / std  # T x H x W x C
            crops += [video[:, :, left : left + 64].transpose(3, 0, 1, 2) for left in (0, 8, 16)]
        with torch.inference_mode():
            output = network(torch.tensor(np.stack(crops), dtype=torch.float32))
        assert output.glob is not None
        direct = (network.probabilities(output), output.local.mean((2, 3, 4)), output.glob)
        for name, value in zip(names, direct, strict=True):
            assert views[name].shape == (6, 6, *value.shape[1:])
            # JPEG decoders differ slightly; different crops and clips differ much more.
            np.testing.assert_allclose(views[name][number], value, atol=0.03 * float(value.abs().max()), err_msg=name)
            assert np.abs(np.diff(views[name][number], axis=0)).max() > 0.03 * float(value.abs().max())


def without_labels(dataset: Dataset, folder: Path) -> Path:
    shutil.copytree(dataset.storage.root, folder)
    with pa.ipc.open_file(folder / "rgb" / "index.arrow") as file:
        table = file.read_all()
    table = table.set_column(SCHEMA.get_field_index("label"), "label", pa.array([-1] * len(table), pa.int32()))
    with index_writer(Storage(folder), dataset.spec("rgb")) as write:
        write(table)
    return folder


@pytest.mark.cluster
def test_a_split_without_labels_is_scored_to_object_storage_without_metrics(
    run: Run, dataset: Dataset, tmp_path: Path, s3: str
):
    data, out = without_labels(dataset, tmp_path / "data"), f"{s3}/new/rgb.parquet"
    Storage(f"{s3}/new/rgb.parquet.parts").write("0" * 16 + "-000000.parquet", b"of a different evaluation")
    done = run_lgd(*command(run, data, out, "--clips", 1, "--json"))
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["videos"], document["unlabelled"]) == (6, 6)
    assert "top1" not in document
    assert set(read_scores(out).labels.tolist()) == {-1}
    assert Storage(s3).list_all() == ["new/rgb.parquet"]
    again = run_lgd(*command(run, data, out, "--clips", 1))
    assert again.returncode == 0, again.stderr
    assert "nothing to do" in again.stderr
    assert "no accuracy: 6 of 6 videos have no label" in again.stdout


@pytest.mark.usefixtures("joined")
def test_a_damaged_frame_is_named(run: Run, dataset: Dataset, tmp_path: Path):
    data = tmp_path / "data"
    shutil.copytree(dataset.storage.root, data)
    index = Index(dataset, "rgb")
    row = int(index.rows("val")[0])
    shard, first = data / index.shard(row), int(index.frames(row, np.array([0])).start[0])
    content = bytearray(shard.read_bytes())
    content[first + 500] ^= 1
    shard.write_bytes(content)
    done = run_lgd(*command(run, data, tmp_path / "x.parquet", "--clips", 2, "--workers", 1))
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("lgd: ")]
    assert f"frame 0 of {index.key(row)} is damaged ({shard}, from byte {first})" in line
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "x.parquet").exists()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--crops", 2), 2, "--crops must be 1 (full frames) or 3 (squares along the long side), not 2"),
        (("--keep", "frames"), 2, "--keep must be clips or features, not 'frames'"),
        (("--split", "test"), 1, "has no split 'test': choose from train, val"),
    ],
)
def test_a_mistake_is_one_line(
    run: Run, dataset: Dataset, tmp_path: Path, options: tuple[object, ...], code: int, message: str
):
    done = run_lgd(*command(run, dataset.storage.root, tmp_path / "x.parquet", *options))
    assert done.returncode == code
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_is_a_folder_is_refused_before_scoring(run: Run, dataset: Dataset, tmp_path: Path):
    (tmp_path / "x.parquet").mkdir()
    done = run_lgd(*command(run, dataset.storage.root, tmp_path / "x.parquet"))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "is a folder" in done.stderr


def test_evaluations_that_version_0_1_began_are_resumed(tmp_path: Path):
    with tarfile.open(VERSION_0_1) as archive:
        archive.extractall(tmp_path, filter="data")
    for name in ("rgb", "rgb-9-views"):
        path = str(tmp_path / f"{name}.parquet")
        scores, run = read_scores(path), open_run(str(tmp_path / "run"))
        identity = evaluate._identity(
            evaluate.VERSION,
            scores.metadata,
            evaluate._fields_of(run),
            evaluate._digest(load_checkpoint(run)["model"]),
            scores.split,
            standard_chunks(len(scores.keys)),
            [],  # --keep
        )
        assert identity == identity_of(path)


def test_every_field_of_the_metadata_decides_the_identity(tmp_path: Path, run: Run, dataset: Dataset):
    first = evaluate._metadata(run, dataset, TestProtocol(), split="val", step=2)
    others = [
        evaluate._metadata(run, dataset, protocol, split="val", step=step)
        for protocol, step in (
            (TestProtocol(), 1),
            (TestProtocol(2), 2),
            (TestProtocol(crops=3), 2),
            (TestProtocol(precision="bfloat16"), 2),
        )
    ]
    table = [replace(dataset, table_splits={"val": SplitCounts(3, hash=text)}) for text in ("1" * 16, "2" * 16)]
    others += [evaluate._metadata(run, each, TestProtocol(), split="val", step=2) for each in table]
    assert len({evaluate._identity(metadata) for metadata in (first, *others)}) == 7
    assert "split_hash" not in first  # of a split of the shards: the identities of earlier versions stay valid


def test_a_missing_chunk_and_a_damaged_one_are_errors_that_name_them(tmp_path: Path):
    folder = Storage(tmp_path)
    with pytest.raises(UserError, match=r"a\.parquet is missing: .* rerun to resume"):
        evaluate._read_chunk(folder, "a.parquet", 1, classes=("a", "b", "c"))
    rows = score_table(["x", "y"], np.array([0, 2]), np.full((2, 3), 1 / 3, np.float32), views={})
    pq.write_table(rows, tmp_path / "a.parquet", write_page_checksum=True)
    assert evaluate._read_chunk(folder, "a.parquet", 2, classes=("a", "b", "c")).num_rows == 2
    with pytest.raises(UserError, match=r"a\.parquet was damaged and has been deleted: rerun to score it again"):
        evaluate._read_chunk(folder, "a.parquet", 3, classes=("a", "b", "c"))
    assert not (tmp_path / "a.parquet").exists()


def test_the_document_has_the_metrics_beside_the_other_fields_and_the_lines_name_the_file():
    probabilities, labels = np.eye(3), np.arange(3)
    metrics = summary(probabilities, labels)
    unlabelled = EvaluateResult("rgb.parquet", "3 clips", 3, 2, 1, 0.5, 3)
    assert list(unlabelled.document()) == [
        "out",
        "protocol",
        "videos",
        "parts_made",
        "parts_there",
        "wall_s",
        "unlabelled",
    ]
    assert unlabelled.lines()[1] == "no accuracy: 3 of 3 videos have no label"
    result = replace(unlabelled, unlabelled=0, **metrics)
    assert result.document() == {
        "out": "rgb.parquet",
        "protocol": "3 clips",
        "parts_made": 2,
        "parts_there": 1,
        "wall_s": 0.5,
        "unlabelled": 0,
        **metrics,
    }
    assert result.lines()[0] == "rgb.parquet: 3 videos, 3 clips"
    assert isinstance(result.lines()[1], Table)
    assert not result.failed
    mixed = replace(result, videos=5, unlabelled=2)
    assert mixed.document()["videos"] == 5
    assert mixed.lines()[1] == "accuracy of the labeled videos: 2 of 5 videos have no label"
    table = mixed.lines()[2]
    assert isinstance(table, Table)
    assert list(table.columns[-1].cells) == ["3"]


def test_an_output_that_another_evaluation_writes_is_refused_with_its_name(run: Run, dataset: Dataset, tmp_path: Path):
    out = tmp_path / "rgb.parquet"
    with locked(Storage(f"{out}.parts"), "lgd evaluate"):
        done = run_lgd(*command(run, dataset.storage.root, out))
    assert done.returncode == 1
    assert done.stderr.startswith(f"lgd: {out}.parts is in use by `lgd evaluate` of ")
    assert not out.exists()


def test_a_checkpoint_that_was_chosen_on_the_scored_split_is_named(
    run: Run, dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture
):
    class Stop(BaseException):
        """Ends the command where it would start a cluster."""

    def stop() -> None:
        raise Stop

    def printed(which: CheckpointChoice, split: str) -> str:
        with pytest.raises(Stop):
            evaluate.evaluate(
                str(run.storage.base),
                str(dataset.storage.base),
                split,
                out=str(tmp_path / f"{which}-{split}.parquet"),
                protocol=TestProtocol(1),
                which=which,
                resources=ScoringResources(),
                start_cluster=stop,
            )
        return " ".join(capsys.readouterr().err.split())

    line = "was chosen by its accuracy on the split val: this accuracy is too high"
    assert line in printed("best", "val")
    assert line not in printed("last", "val")
    assert line not in printed("best", "train")
