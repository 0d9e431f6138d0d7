"""docs/json.md, written from the dataclasses that the commands return: `python -m tests.support.json_page FILE`.

Each field of a `CommandResult` is a key of the document of `--json`; its description is the string below the field. A
key that cannot be a name in Python, such as `class`, is described in the class docstring: `class: Class name.`. The
metadata of a field says where its value is if it is not a key (see `lgd.pipeline.console.command_line`). Nested
dataclasses and TypedDicts have a table of their own.
"""

import ast
import dataclasses
import inspect
import json
import re
import sys
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

HEAD = """# JSON documents

`lgd COMMAND --json` prints one JSON document on stdout and nothing else there. Progress, warnings and errors go to
stderr. Paths and addresses are as given on the command line. Accuracies are fractions of 1. A key with a type that ends
in "or absent" is only in documents to which it applies. A key that is described as null may be absent in documents of
earlier versions. An object that several commands have is described once.

This page is written by `make docs` from the dataclasses in the code.
"""

FLAT = {"TrainConfig"}  # written by `to_flat_dict`: the keys of nested objects are joined by dots


@dataclasses.dataclass(frozen=True)
class Key:
    """A key of an object."""

    name: str
    hint: Any
    """Type of the value."""
    text: str
    """Description; empty if there is none."""
    optional: bool = False
    """Whether documents can lack the key."""
    place: str = ""
    """"document" or "top level" if it is not a key: the value is the document, or the value's keys are."""


def page(results: Mapping[str, type]) -> str:
    """The page as Markdown. results: by command, the dataclass that it returns."""
    parts = [HEAD]
    shown: set[type] = set()
    for command, result in results.items():
        parts += [f"## {command}\n", _summary(result) + "\n", _table(result)]
        for inner in nested(result):
            if inner not in shown:  # under an earlier command
                shown.add(inner)
                parts += [f"### {inner.__name__}\n", _summary(inner) + "\n", _table(inner)]
    return "\n".join(parts)


def keys(kind: type) -> list[Key]:
    """The keys of a dataclass or TypedDict in JSON."""
    texts = _descriptions(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else {}
    optional = {*getattr(kind, "OPTIONAL", ()), *getattr(kind, "__optional_keys__", ())}
    found = []
    for name, hint in typing.get_type_hints(kind).items():
        if name.startswith("_") or typing.get_origin(hint) is typing.ClassVar:
            continue
        if kind.__name__ in FLAT and _is_object(hint):
            found += [dataclasses.replace(key, name=f"{name}.{key.name}") for key in keys(hint)]
            continue
        metadata = fields[name].metadata if name in fields else {}
        key, place = metadata.get("json_key", name), metadata.get("json_place", "")
        found.append(Key(key, hint, texts.get(name, ""), name in optional, place))
    return found


def nested(kind: type) -> list[type]:
    """Dataclasses and TypedDicts inside the types of the values of an object, at any depth."""
    found: dict[type, None] = {}
    for key in keys(kind):
        for inner in _inside(key.hint):
            found |= dict.fromkeys([inner, *nested(inner)])
    return list(found)


def _descriptions(kind: type) -> dict[str, str]:
    """The string below each field in the source of a dataclass (and of those it is derived from) or of a TypedDict."""
    found = dict(re.findall(r"^ *(class): (.+)$", kind.__doc__ or "", re.MULTILINE))
    for each in reversed(kind.__mro__) if dataclasses.is_dataclass(kind) else [kind]:
        if not _is_object(each):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(each))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, text in zip(body.body, body.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
                and isinstance(text.value.value, str)
            ):
                found[field.target.id] = " ".join(text.value.value.split())
    return found


def _summary(kind: type) -> str:
    return " ".join((kind.__doc__ or "").split("\n\n")[0].split())


def _table(kind: type) -> str:
    found = keys(kind)
    if found[0].place == "document":
        (key,) = found
        return f"The document is an {_type_name(key.hint)}. {key.text}\n"
    rows = []
    for key in found:
        name, type_name = f"`{key.name}`", _type_name(key.hint)
        if key.place == "top level":
            is_mapping = not _is_object(key.hint)  # name -> object
            name = "each other key" if is_mapping else f"the keys of {type_name}"
            type_name = _type_name(typing.get_args(key.hint)[1]) if is_mapping else ""
        if key.optional:
            type_name = type_name.removesuffix(" or null") + ", or absent"
        rows.append(f"| {name} | {type_name} | {key.text} |")
    return "\n".join(["| key | type | meaning |", "|---|---|---|", *rows, ""])


def _type_name(hint: Any) -> str:
    """A type as JSON has it."""
    names = {str: "string", int: "integer", float: "number", bool: "true or false", type(None): "null", Any: "any"}
    if hint in names:
        return names[hint]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type_name(each) for each in arguments)
    if origin is typing.Literal:
        return " or ".join(json.dumps(each) for each in arguments)
    if _is_object(hint):
        return str(hint.__name__)
    if origin is not None and issubclass(origin, Mapping):
        return f"object: string -> {_type_name(arguments[1])}"
    if origin is not None:
        return f"array of {_type_name(arguments[0])}"
    return "object" if hint is dict else "array" if hint in (list, tuple) else str(getattr(hint, "__name__", hint))


def _inside(hint: Any) -> Iterator[type]:
    if _is_object(hint):
        yield hint
    for argument in typing.get_args(hint):
        yield from _inside(argument)


def _is_object(hint: Any) -> bool:
    """Whether a type is an object with known keys in JSON."""
    return typing.is_typeddict(hint) or (isinstance(hint, type) and dataclasses.is_dataclass(hint))


def mismatches(value: Any, hint: Any, where: str) -> list[str]:
    """How a value of a JSON document differs from the type that the page gives it, one line per difference.

    where: the place of the value in the document, for the lines."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        found = [mismatches(value, each, where) for each in arguments]
        return min(found, key=len)
    if _is_object(hint):
        return _key_mismatches(value, hint, where)
    if isinstance(value, dict) and origin is not None and issubclass(origin, Mapping):
        return [line for key, each in value.items() for line in mismatches(each, arguments[1], f"{where}.{key}")]
    if isinstance(value, list) and origin in (list, tuple):
        return [line for each in value for line in mismatches(each, arguments[0], f"{where}[]")]
    if origin is typing.Literal:
        return [] if value in arguments else [f"{where}: {value!r} is not {_type_name(hint)}"]
    fits = hint is Any or type(value) is hint or (hint is float and type(value) is int)
    return [] if fits else [f"{where}: {value!r} is not {_type_name(hint)}"]


def _key_mismatches(value: Any, kind: type, where: str) -> list[str]:
    found = keys(kind)
    if found[0].place == "document":
        return mismatches(value, found[0].hint, where)
    if not isinstance(value, dict):
        return [f"{where}: {value!r} is not {kind.__name__}"]
    lines, others = [], dict(value)
    for key in (key for key in found if not key.place):
        if key.name in others:
            lines += mismatches(others.pop(key.name), key.hint, f"{where}.{key.name}")
        elif not key.optional:
            lines.append(f"{where} lacks {key.name}")
    for key in (key for key in found if key.place):
        return lines + mismatches(others, key.hint, where)
    return lines + [f"{where}.{name} is not described" for name in others]


def results() -> dict[str, type]:
    """By command, the dataclass that it returns."""
    from lgd.benchmarks.flow import FlowBenchmark
    from lgd.benchmarks.loader import LoaderBenchmark
    from lgd.benchmarks.preprocess import PreprocessBenchmark
    from lgd.benchmarks.train import TrainBenchmark
    from lgd.clusters.doctor.result import DoctorResult
    from lgd.clusters.submit import StoppedJob
    from lgd.pipeline.inspection.describe import DatasetDescription
    from lgd.prediction.predict_files import PredictResult
    from lgd.preprocessing.dataset_splits import SplitsResult
    from lgd.preprocessing.job import PreprocessResult
    from lgd.training.elastic import TrainResult
    from lgd.training.fusion.comparison import FuseResult
    from lgd.training.models.model_list import ModelList
    from lgd.training.recipe_list import RecipeDetails, RecipeList
    from lgd.training.report.page import ReportResult
    from lgd.training.reproduce import ReproduceResult
    from lgd.training.scoring.evaluate import EvaluateResult
    from lgd.training.transfer.average import AverageResult
    from lgd.training.transfer.cross_validate import CrossValidation
    from lgd.training.transfer.official import TransferResult

    return {
        "lgd preprocess": PreprocessResult,
        "lgd splits": SplitsResult,
        "lgd inspect": DatasetDescription,
        "lgd train": TrainResult,
        "lgd evaluate": EvaluateResult,
        "lgd fuse": FuseResult,
        "lgd average": AverageResult,
        "lgd predict": PredictResult,
        "lgd report": ReportResult,
        "lgd models": ModelList,
        "lgd recipes": RecipeList,
        "lgd recipes NAME": RecipeDetails,
        "lgd reproduce, lgd demo": ReproduceResult,
        "lgd reproduce of UCF101 and HMDB51": TransferResult,
        "lgd cross-validate": CrossValidation,
        "lgd submit --stop": StoppedJob,
        "lgd doctor": DoctorResult,
        "lgd bench flow": FlowBenchmark,
        "lgd bench preprocess": PreprocessBenchmark,
        "lgd bench loader": LoaderBenchmark,
        "lgd bench train": TrainBenchmark,
    }


def main(file: str) -> None:
    """Write the page to a file."""
    Path(file).write_text(page(results()))


if __name__ == "__main__":
    main(sys.argv[1])
