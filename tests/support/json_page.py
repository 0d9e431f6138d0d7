"""docs/json.md, written from the dataclasses that the commands return: `python -m tests.support.json_page FILE`.

Each field of a `CommandResult` is a key of the document of `--json`; its description is the string below the field.
Nested dataclasses and TypedDicts have a table of their own.
"""

import ast
import dataclasses
import inspect
import sys
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

HEAD = """# JSON documents

`lgd COMMAND --json` prints one JSON document on stdout and nothing else there. Progress, warnings and errors go to
stderr. Paths and addresses are as given on the command line. Accuracies are fractions of 1. A key that is described as
null may be absent in documents of earlier versions. An object that several commands have is described once.

This page is written by `make docs` from the dataclasses in the code.
"""


def page(results: Mapping[str, type]) -> str:
    """The page as Markdown. results: by command, the dataclass that it returns."""
    parts = [HEAD]
    shown: set[type] = set()
    for command, result in results.items():
        parts.append(f"## {command}\n")
        parts.append(_summary(result) + "\n")
        parts.append(_table(result))
        for inner in dict.fromkeys(_nested(result)):
            if inner in shown:  # under an earlier command
                continue
            shown.add(inner)
            parts.append(f"### {inner.__name__}\n")
            parts.append(_summary(inner) + "\n")
            parts.append(_table(inner))
    return "\n".join(parts)


def descriptions(kind: type) -> dict[str, str]:
    """The string below each field in the source of a dataclass (and of those it is derived from) or of a TypedDict."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__) if dataclasses.is_dataclass(kind) else [kind]:
        if not _is_object(each):
            continue
        try:
            body = ast.parse(textwrap.dedent(inspect.getsource(each))).body[0]
        except OSError:  # a TypedDict with a key that is no Python name, such as "class"
            continue
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


def _summary(dataclass: type) -> str:
    return " ".join((dataclass.__doc__ or "").split("\n\n")[0].split())


def _table(dataclass: type) -> str:
    texts = descriptions(dataclass)
    rows = [
        f"| `{name}` | {_type_name(hint)} | {texts.get(name, '')} |"
        for name, hint in typing.get_type_hints(dataclass).items()
        if not name.startswith("_") and typing.get_origin(hint) is not typing.ClassVar
    ]
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
        return " or ".join(f'"{each}"' for each in arguments)
    if _is_object(hint):
        return str(hint.__name__)
    if origin in (typing.NotRequired, typing.Required, typing.Annotated):
        return _type_name(arguments[0])
    if origin is not None and issubclass(origin, Mapping):
        return f"object: string -> {_type_name(arguments[1])}"
    if origin is not None:
        return f"array of {_type_name(arguments[0])}"
    return "object" if hint is dict else "array" if hint in (list, tuple) else str(getattr(hint, "__name__", hint))


def _nested(dataclass: type) -> Iterator[type]:
    """Dataclasses and TypedDicts inside the types of a dataclass's fields, at any depth."""
    for hint in typing.get_type_hints(dataclass).values():
        for inner in _inside(hint):
            yield inner
            yield from _nested(inner)


def _inside(hint: Any) -> Iterator[type]:
    if _is_object(hint):
        yield hint
    for argument in typing.get_args(hint):
        yield from _inside(argument)


def _is_object(hint: Any) -> bool:
    """Whether a type is an object with known keys in JSON."""
    return typing.is_typeddict(hint) or (isinstance(hint, type) and dataclasses.is_dataclass(hint))


def results() -> dict[str, type]:
    """By command, the dataclass that it returns."""
    from lgd.benchmarks.flow import FlowBenchmark
    from lgd.benchmarks.loader import LoaderBenchmark
    from lgd.benchmarks.preprocess import PreprocessBenchmark
    from lgd.benchmarks.train import TrainBenchmark
    from lgd.clusters.submit import StoppedJob
    from lgd.pipeline.inspection.describe import DatasetDescription
    from lgd.prediction.predict_files import PredictResult
    from lgd.preprocessing.job import PreprocessResult
    from lgd.training.elastic import TrainResult
    from lgd.training.fusion.comparison import FuseResult
    from lgd.training.models.model_list import ModelList
    from lgd.training.recipe_list import RecipeDetails, RecipeList
    from lgd.training.report.page import ReportResult
    from lgd.training.reproduce import ReproduceResult
    from lgd.training.scoring.evaluate import EvaluateResult

    return {
        "lgd preprocess": PreprocessResult,
        "lgd inspect": DatasetDescription,
        "lgd train": TrainResult,
        "lgd evaluate": EvaluateResult,
        "lgd fuse": FuseResult,
        "lgd predict": PredictResult,
        "lgd report": ReportResult,
        "lgd models": ModelList,
        "lgd recipes": RecipeList,
        "lgd recipes NAME": RecipeDetails,
        "lgd reproduce, lgd demo": ReproduceResult,
        "lgd submit --stop": StoppedJob,
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
