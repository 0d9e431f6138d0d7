"""Parse the words of a command line into the call of a command, with help and errors in plain English.

tyro reads the options from the signature of the command and from the dataclasses in it. This module decides how options
are described: the names of their values, full sentences, each default once."""

import contextlib
import dataclasses
import functools
import inspect
import io
import itertools
import re
import shutil
import sys
import textwrap
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import tyro
from tyro.conf import Positional, arg
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec, StructTypeInfo

from lgd.pipeline.console.errors import UsageError
from lgd.pipeline.console.option_errors import error_line
from lgd.pipeline.console.option_values import is_switch, value_rules

Result = TypeVar("Result")
HelpText = str | Callable[[], str | None] | None  # tyro's own type: a function reads the docstring only when needed

ARGUMENT = type(arg())  # what `tyro.conf.arg` returns
POSITIONAL = get_args(Positional[int])[1]
COLORS = re.compile(r"\x1b\[[\d;]*m")
ASCII_BOXES = str.maketrans("│─╭╮╰╯", "|-++++")


def parse_command(
    command: Callable[..., Result], words: list[str], program: str, *, defaults: Mapping[str, Any]
) -> Callable[[], Result]:
    """Return the call of `command` that the words ask for.

    program: the words before them, such as `lgd train`. defaults: values of parameters that replace the command's own
    defaults. `--help` prints the help and raises SystemExit(0).

    Raises UsageError, in one line, if the words are wrong."""
    signature = inspect.signature(command, eval_str=True)
    parameters = [
        parameter.replace(
            default=defaults.get(parameter.name, parameter.default),
            annotation=_describe(parameter.name, parameter.annotation, parameter.default, helptext=None)[0],
        )
        for parameter in signature.parameters.values()
    ]

    def call(*values: Any, **named: Any) -> Callable[[], Result]:
        return functools.partial(command, *values, **named)

    call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # inspect reads it
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}

    def parse(words: list[str], terminal: bool = False) -> tuple[Callable[[], Result] | None, str, str]:
        """Return the call, or None and what tyro printed to stdout and stderr instead."""
        registry = value_rules()
        registry.struct_rule(_DataclassRule())
        config = (tyro.conf.FlagCreatePairsOff,)
        out, err = _Printed(terminal), _Printed(terminal)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                parsed = tyro.cli(call, args=words, prog=program, description="", config=config, registry=registry)
        except SystemExit:
            return None, out.getvalue(), err.getvalue()
        return parsed, "", ""

    parsed, _, error = parse(words)
    if parsed is not None:
        return parsed
    if error:
        options = re.findall(r"│ (--[\w.-]+)", parse(["--help"])[1])
        raise UsageError(f"{error_line(error, options)}; see `{program} --help`")
    _, boxes, _ = parse(words, terminal=sys.stdout.isatty())  # again, with colors
    help_text = _help(boxes, usage(program, parameters), command)
    if (sys.stdout.encoding or "utf-8").lower() not in ("utf-8", "utf8"):
        help_text = help_text.translate(ASCII_BOXES)
    sys.stdout.write(help_text)
    raise SystemExit(0)


def usage(program: str, parameters: Sequence[inspect.Parameter]) -> str:
    """Return the usage line: the options that must be given and the positional arguments, by the names of their
    values; optional ones in brackets."""
    words, positional = [f"usage: {program} [OPTIONS]"], []
    for parameter in parameters:
        metadata = getattr(parameter.annotation, "__metadata__", ())
        metavar = _given(metadata, "metavar") or parameter.name.upper()
        required = parameter.default is inspect.Parameter.empty
        if POSITIONAL in metadata:
            if Ellipsis in get_args(get_args(parameter.annotation)[0]) and "..." not in metavar:
                metavar += " ..."
            positional.append(metavar if required else f"[{metavar}]")
        elif required:
            words.append(f"--{parameter.name.replace('_', '-')} {metavar}")
    return " ".join(words + positional)


class _Printed(io.StringIO):
    """What tyro prints: with boxes, which it draws only for UTF-8, and with colors for a terminal."""

    encoding = "utf-8"

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


def _help(text: str, usage_line: str, command: Callable[..., Any]) -> str:
    """Replace the text above the boxes of tyro's help by the usage line and the description of the command."""
    paragraphs = re.split(r"\n\s*\n", inspect.getdoc(command) or "")
    width = min(shutil.get_terminal_size().columns, 100)
    description = "\n\n".join(textwrap.fill(" ".join(paragraph.split()), width) for paragraph in paragraphs)
    boxes = itertools.dropwhile(lambda line: "╭" not in line, text.splitlines())
    lines = [line for line in boxes if not re.fullmatch(r"│ *│", COLORS.sub("", line))]  # no empty lines in a box
    rest = re.sub(r"(--help.*?)show", r"\1Show", "\n".join(lines), count=1)
    return f"{usage_line}\n\n{description}\n\n{rest}\n"


def _describe(name: str, annotation: Any, default: Any, *, helptext: HelpText) -> tuple[Any, HelpText]:
    """Return the annotation and the help text of a parameter or field as tyro is to show them: with the name of its
    value, full sentences, and the default once."""
    kind, *metadata = get_args(annotation) if get_origin(annotation) is Annotated else (annotation,)
    if dataclasses.is_dataclass(kind):
        return annotation, helptext
    given_help = _given(metadata, "help")

    def text() -> str:
        found = given_help or (helptext() if callable(helptext) else helptext) or ""
        sentence = "\n\n".join(" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", found.strip()))
        sentence = sentence[:1].upper() + sentence[1:] + ("." if sentence and sentence[-1] not in ".?!:" else "")
        return f"Switch off: {sentence}" if default is True and sentence else sentence

    def hint(label: str) -> str:
        return "" if kind is bool or label in ("", "''", "None") or "Default:" in text() else f"Default: {label}."

    positional = name.upper() + (" ..." if Ellipsis in get_args(kind) else "") if POSITIONAL in metadata else None
    metavar = _given(metadata, "metavar") or positional or _metavar(name, kind)
    described = arg(metavar=metavar, help=text() if given_help else None, help_behavior_hint=hint)
    return Annotated[(annotation, described)], text


def _given(metadata: Sequence[Any], setting: str) -> str | None:
    """The setting of the last `tyro.conf.arg` among the metadata of an annotation that has it."""
    found = [getattr(one, setting) for one in metadata if isinstance(one, ARGUMENT)]
    return next((value for value in reversed(found) if value is not None), None)


def _metavar(name: str, kind: Any) -> str | None:
    """The name of an option's value in help and usage; None where tyro's own is as good."""
    if get_origin(kind) is Annotated:
        return _metavar(name, get_args(kind)[0])
    parts = get_args(kind)
    if is_switch(kind):
        return "{auto,true,false}"
    if get_origin(kind) in (Union, types.UnionType):
        names = [_metavar(name, part) or "" for part in parts if part is not type(None)]
        return " or ".join(dict.fromkeys(names))
    if get_origin(kind) is tuple:
        return " ".join("..." if part is Ellipsis else _metavar(name, part) or "" for part in parts)
    if get_origin(kind) is Literal:
        return "{" + ",".join(map(str, parts)) + "}"
    names_of_types = {int: "N", float: "NUMBER", Path: "PATH", str: name.upper()}
    return names_of_types.get(kind)


class _DataclassRule:
    """The fields of a dataclass as tyro finds them, described like the parameters of a command."""

    def __init__(self) -> None:
        self._inside = False

    def __call__(self, info: StructTypeInfo) -> StructConstructorSpec | None:
        if self._inside or not dataclasses.is_dataclass(info.type):
            return None
        self._inside = True  # tyro's own rule is next
        try:
            spec = ConstructorRegistry.get_struct_spec(info)
        finally:
            self._inside = False
        if not isinstance(spec, StructConstructorSpec):
            return None
        return dataclasses.replace(spec, fields=tuple(map(_described_field, spec.fields)))


def _described_field(field: StructFieldSpec) -> StructFieldSpec:
    annotation, helptext = _describe(field.name, field.type, field.default, helptext=field.helptext)
    return dataclasses.replace(field, type=annotation, helptext=helptext)
