"""A run folder: configuration, checkpoints, metrics and result of one training.

RUN/
  config.json        name of the recipe, every field of the configuration, and the data: classes and stream spec, by
                     which the stream of other videos can be created in the same way
  checkpoints/       step-00000150.pt ...
  best.json          name of the best checkpoint by validation top-1
  metrics.jsonl      one line every few seconds and one per validation
  tensorboard/
  result.json        written last: a run with a result is finished
  .lock-...          while a command trains it, see `lgd.pipeline.storage.lock`

Compatibility: VERSION is the version of this layout and of the top level of config.json. It rises only if earlier
versions of lgd would misread a run; new files and new fields with defaults do not need it. This version opens runs of
version 2, which lgd 0.1 and later write. The fields of the configuration have their own rules, see
`lgd.training.config_file`. config.json names the version of lgd that wrote it, so that a run that is too new is refused
with the version that can read it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from lgd import __version__
from lgd.pipeline.console.errors import UserError
from lgd.pipeline.console.progress import say
from lgd.pipeline.dataset.dataset import Dataset, Setting, StreamSpec, describe_classes
from lgd.pipeline.storage.checked_json import DamagedFile, check_range, parse_json, read_json
from lgd.pipeline.storage.lock import LOCK, locked
from lgd.pipeline.storage.storage import TEMPORARY, Storage
from lgd.training.config_file import RENAMED_FIELDS, from_flat_dict, from_json, option_name, to_flat_dict
from lgd.training.models.config import MODELS
from lgd.training.recipes import TrainConfig

FORMAT = "lgd-run"
VERSION = 2
CONFIG, METRICS, RESULT = "config.json", "metrics.jsonl", "result.json"
CHECKPOINTS = "checkpoints"  # folder
MAX_STEP = 10**8 - 1  # names of checkpoints have 8 digits
# Fields on which the result does not depend, apart from rounding.
FREE_FIELDS = frozenset({"compile", "cuda_graph", "model.checkpoint_activations", "model.convolutions"})
# Files with which workers report to the driver and to the workers that replace them.
ERROR, FAILURE, STARTS = "error.json", "failure.json", "starts.json"


@dataclass(frozen=True)
class RunData:
    """The data of a run, as config.json describes them.

    hash, recipe: hash and settings of the stream spec. fingerprint: of the videos of the dataset. classes: those of the
    dataset, or those of --classes. splits: hashes of the used splits of splits.parquet, by name."""

    hash: str
    recipe: dict[str, Setting]
    fingerprint: str
    classes: tuple[str, ...]
    splits: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RunDescription:
    """Content of config.json.

    config: fields of the configuration, see `to_flat_dict`. lgd: version of lgd that wrote it; None for lgd 0.1."""

    format: str
    version: int
    recipe: str
    config: dict[str, Any]
    data: RunData
    lgd: str | None = None


@dataclass(frozen=True)
class _Result:
    """Content of result.json."""

    steps: int
    val_top1: float | None = None
    val_top5: float | None = None
    val_videos: int | None = None

    def __post_init__(self) -> None:
        check_range("steps", self.steps, 0, high=MAX_STEP)
        check_range("val_top1", self.val_top1, 0, high=1)
        check_range("val_top5", self.val_top5, 0, high=1)
        check_range("val_videos", self.val_videos, 1, high=1 << 40)


@dataclass(frozen=True)
class Run:
    """An opened run folder.

    recipe: name. classes: of the network, in the order of the labels. stream_spec: of the stream that it is trained on.
    fingerprint: of the videos of the dataset. newer_fields: fields of the configuration that the version that started
    the run did not have. splits: hashes of the splits of splits.parquet that it is trained and validated on, by name;
    splits of the shards are part of the fingerprint."""

    storage: Storage
    recipe: str
    config: TrainConfig
    classes: tuple[str, ...]
    stream_spec: StreamSpec
    fingerprint: str
    newer_fields: frozenset[str] = frozenset()
    splits: Mapping[str, str] = field(default_factory=dict)

    @property
    def spec_hash(self) -> str:
        """Hash of the stream spec."""
        return self.stream_spec.hash

    def result(self) -> dict[str, Any] | None:
        """Return the content of result.json: "steps", and the accuracy if the run was validated; None for a run that
        is not finished. Raises DamagedFile, which names the field."""
        if not self.storage.exists(RESULT):
            return None
        result = read_json(_Result, self.storage.read(RESULT), self.storage.display(RESULT))
        return {name: value for name, value in asdict(result).items() if value is not None}

    def description(self) -> dict[str, Any]:
        """Return the content of config.json."""
        settings = dict(self.stream_spec.settings)
        data = RunData(self.spec_hash, settings, self.fingerprint, self.classes, dict(self.splits))
        return asdict(RunDescription(FORMAT, VERSION, self.recipe, to_flat_dict(self.config), data, __version__))

    def used_splits(self, dataset: Dataset) -> dict[str, str]:
        """Return the hashes of the splits of splits.parquet that the run uses, as they are now in the dataset."""
        names = (self.config.split, self.config.validation.split)
        return {name: found for name in names if (found := dataset.split_hash(name)) is not None}


def begin_run(
    folder: str, recipe: str, config: TrainConfig, *, dataset: Dataset, resume_from: int | None = None
) -> Run:
    """Create a run folder, or open an existing one to resume it.

    dataset: with the classes that --classes selects.
    FREE_FIELDS of an existing run may change, its micro-batches if the result does not depend on them, and with
    --resume-from the options of the optimizer: the returned run has the new values, which `save_changes` writes.

    Raises UserError, with the differences, if an existing run has a different configuration or dataset, and if another
    command is creating it; UsageError for a new run with micro-batches that do not fit."""
    storage = Storage(folder)
    spec = dataset.spec(config.stream)
    run = Run(storage, recipe, config, dataset.classes, spec, dataset.fingerprint)
    run = replace(run, splits=run.used_splits(dataset))
    if not storage.exists(CONFIG):
        if resume_from is not None:
            raise UserError(f"{folder} is not a run with checkpoints: start it without --resume-from")
        config.check_micro_batches()
        # Other commands may be creating it, and killed ones may have left temporary files.
        if any(name != CONFIG and not name.startswith((LOCK, TEMPORARY)) for name in storage.names()):
            raise UserError(f"{folder} contains other files and is not a run: choose a different --run folder")
        with locked(storage, "lgd train") as writer:
            if not writer.exists(CONFIG):
                writer.make_folder(CHECKPOINTS)
                writer.write(CONFIG, json.dumps(run.description(), indent=2).encode() + b"\n")
                return run
    existing = open_run(folder)
    run = replace(run, config=_without_newer_fields(config, existing))
    if existing.config.classes is not None and run.config.classes is not None:  # the list counts, not its file
        run = replace(run, config=replace(run.config, classes=existing.config.classes))
    if run.config.micro_batch_size != existing.config.micro_batch_size:
        run.config.check_micro_batches()
    _check_same(existing, run, resume_from=resume_from)
    return replace(existing, config=run.config)


def changed_fields(run: Run) -> dict[str, tuple[Any, Any]]:
    """Return the fields of a run's configuration that differ from its config.json: old and new value by name."""
    old, new = to_flat_dict(open_run(run.storage.address).config), to_flat_dict(run.config)
    return {name: (old[name], new[name]) for name in new if old[name] != new[name]}


def save_changes(run: Run) -> None:
    """Write the changed fields of a run whose lock this command holds to its config.json, and print them."""
    changes = changed_fields(run)
    if not changes:
        return
    document = json.loads(run.storage.read(CONFIG))
    written_names = {RENAMED_FIELDS.get(name, name): name for name in document["config"]}
    for name, (old, new) in changes.items():
        say(f"{run.storage.display()}: {option_name(name)} changes from {old} to {new}")
        document["config"][written_names.get(name, name)] = new
    run.storage.write(CONFIG, json.dumps(document, indent=2).encode() + b"\n")


def _without_newer_fields(config: TrainConfig, existing: Run) -> TrainConfig:
    """Return the configuration with the existing run's values of the fields that are newer than that run, so that the
    command that started it resumes it. Prints a line for each of them that differs."""
    old, new = to_flat_dict(existing.config), to_flat_dict(config)
    for name in sorted(existing.newer_fields - FREE_FIELDS):
        if old[name] != new[name]:
            say(
                f"{existing.storage.display()} was started by a version of lgd without {option_name(name)}: it stays "
                f"at {old[name]}, which is what that version did"
            )
            new[name] = old[name]
    return from_flat_dict(TrainConfig, new, existing.storage.display(CONFIG))


def _check_same(existing: Run, run: Run, *, resume_from: int | None) -> None:
    old, new = to_flat_dict(existing.config), to_flat_dict(run.config)
    different = [name for name in new if old[name] != new[name] and name not in FREE_FIELDS]
    if existing.config.micro_batch_is_free:
        different = [name for name in different if name != "micro_batch_size"]
    if resume_from is not None:
        different = [name for name in different if not name.startswith("optimizer.")]
    differences = [f"{option_name(name)}: {old[name]} -> {new[name]}" for name in different]
    if existing.config.classes is not None and existing.classes != run.classes and "classes" not in different:
        differences.append(f"--classes: {describe_classes(existing.classes)} -> {describe_classes(run.classes)}")
    elif "classes" not in different and _data_of(existing) != _data_of(run):
        differences.append("a different dataset")
    if differences:
        only_optimizer = all(name.startswith("--optimizer.") for name in differences)
        raise UserError(
            f"{existing.storage.display()} has a different configuration ({'; '.join(differences)}): give the same "
            "options to resume it, or choose a different --run folder"
            + (", or change these options from an earlier step on with --resume-from" if only_optimizer else "")
        )
    check_splits(existing, run)


def _data_of(run: Run) -> tuple[str, str, tuple[str, ...]]:
    return run.spec_hash, run.fingerprint, run.classes


def check_splits(existing: Run, run: Run) -> None:
    """Raise UserError if a split that a run uses has other videos than when the run began.

    run: the same run with the splits as they are now in its dataset."""
    for name in sorted({*existing.splits, *run.splits}):
        before, now = existing.splits.get(name), run.splits.get(name)
        if before == now:
            continue
        if before is None:
            problem = (
                f"was added to the dataset after the run began: remove it with `lgd splits DATASET --remove {name}`"
            )
        elif now is None:
            problem = "is missing in the dataset: add it again with `lgd splits`"
        else:
            problem = "has other videos than when the run began: restore it with `lgd splits`"
        raise UserError(f"{existing.storage.display()}: the split {name} {problem}, or choose a different --run folder")


def open_run(folder: str) -> Run:
    """Open a run folder.

    Raises UserError, with the file and the field, if it is missing, is not a run, is damaged or has another version."""
    storage = Storage(folder)
    if not storage.exists(CONFIG):
        raise UserError(
            f"{folder} is not a run (it has no {CONFIG}): create one with `lgd train RECIPE --run {folder}`"
        )
    shown, content = storage.display(CONFIG), storage.read(CONFIG)
    try:
        document = parse_json(content, shown, finite=False)
        written_format, version, written_by = document["format"], document["version"], document.get("lgd")
    except (DamagedFile, KeyError, TypeError, AttributeError) as error:
        reason = str(error) if isinstance(error, DamagedFile) else repr(error)
        raise UserError(f"{shown} does not describe a run ({reason}): choose a different --run folder") from error
    if written_format != FORMAT:
        raise UserError(f"{shown} does not describe a run (format {written_format!r}): choose a different --run folder")
    check_version(f"{storage.display()} is a run", version, VERSION, written_by=written_by, otherwise="train again")
    description = from_json(RunDescription, content, shown, written_by=written_by)
    config = from_flat_dict(TrainConfig, description.config, shown, written_by=written_by)
    if config.model.name not in MODELS:
        raise UserError(f"{shown}: field 'model.name' is {config.model.name!r}, must be one of {', '.join(MODELS)}")
    spec = StreamSpec(config.stream, dict(description.data.recipe))
    if spec.hash != description.data.hash:
        raise UserError(f"{shown} is damaged: its stream spec does not match its hash")
    data = description.data
    newer = to_flat_dict(config).keys() - {RENAMED_FIELDS.get(name, name) for name in description.config}
    return Run(
        storage,
        description.recipe,
        config,
        data.classes,
        spec,
        data.fingerprint,
        newer_fields=frozenset(newer),
        splits=data.splits,
    )


def check_version(
    subject: str, version: object, supported: int, *, written_by: str | None = None, otherwise: str
) -> None:
    """Raise UserError, which names the version of lgd to use, if a file is not of the supported version.

    subject: "runs/a is a run". written_by: version of lgd that wrote it, if known. otherwise: what else to do with a
    file of an older version."""
    if version == supported:
        return
    newer = isinstance(version, int) and version > supported
    writer = f"lgd {written_by}" if written_by else f"{'a newer' if newer else 'an older'} version of lgd"
    raise UserError(
        f"{subject} of version {version}, written by {writer}; lgd {__version__} reads version {supported}: use "
        + ("that version or a later one" if newer else f"that version, or {otherwise}")
    )
