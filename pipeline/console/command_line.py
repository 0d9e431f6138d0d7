"""Words of a command line -> the call of a verb -> its answer on stdout, or one line that says what is wrong."""

import contextlib
import dataclasses
import functools
import inspect
import io
import itertools
import json
import os
import shlex
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Annotated, Any, NamedTuple

import tyro
from rich.console import Console
from rich.table import Table
from tyro.conf import FlagCreatePairsOff, arg

from lgd.pipeline.console.errors import UsageError, UserError
from lgd.pipeline.console.progress import console as progress_console
from lgd.pipeline.console.progress import say

Json = Annotated[bool, FlagCreatePairsOff, arg(help="Print the result as one JSON document on stdout.")]


Line = str | Table  # what a result prints: a line of text, or a table


class CommandResult(ABC):
    """What a command returns: a frozen dataclass derived from this class.

    Its fields are the JSON document of `--json`; `lines` is what a person reads."""

    @abstractmethod
    def lines(self) -> list[Line]:
        """Lines and tables for a person, on stdout."""

    def document(self) -> Any:
        """The JSON document: the fields, unless a subclass says otherwise."""
        return dataclasses.asdict(self)  # type: ignore[call-overload]  # subclasses are dataclasses

    @property
    def failed(self) -> str:
        """One line that says what the command did not achieve; it is printed last and the exit code is 1. Empty if the
        command succeeded."""
        return ""


class Answer(NamedTuple):
    """Deprecated: being replaced by `CommandResult`."""

    document: Any
    text: list[Any]
    failed: str = ""


Command = Callable[..., "Answer | CommandResult"]
Commands = Mapping[str, Command | Mapping[str, Command]]  # a verb may have verbs of its own: `lgd bench flow`
Defaults = Callable[[str, list[str]], dict[str, Any]]  # (verb, the words after it) -> values by parameter


def overview(commands: Commands, program: str) -> str:
    """What `program` (`lgd` or `lgd bench`) can do, a line a verb."""
    lines = [f"usage: {program} VERB ...", "", "Two-stream video action recognition on a cluster.", ""]
    for name, command in commands.items():
        about = (
            f"one of {', '.join(command)}" if isinstance(command, Mapping) else (command.__doc__ or "").splitlines()[0]
        )
        lines.append(f"  {name:<12}{about}")
    return "\n".join([*lines, "", f"{program} VERB --help explains a verb's options.", ""])


def dispatch(
    words: list[str], commands: Commands, defaults: Defaults, *, above: tuple[str, ...] = ()
) -> "Answer | CommandResult":
    """Parses a command line without its `lgd` and does it. above: the verb that the verbs belong to, if any.

    Raises UsageError for a command line that is wrong."""
    if not words or words[0] in ("-h", "--help"):
        sys.stdout.write(overview(commands, " ".join(["lgd", *above])))
        raise SystemExit(0 if words else 2)
    name, *rest = words
    path = (*above, name)
    if name not in commands:
        raise UsageError(f"there is no verb {' '.join(path)!r}: choose from {', '.join(commands)}")
    command = commands[name]
    if isinstance(command, Mapping):
        return dispatch(rest, command, defaults, above=path)
    return parsed(command, rest, " ".join(["lgd", *path]), defaults=defaults(" ".join(path), rest))()


class CommandSequence:
    """Verbs done one after the other, as a user would. seconds: that each stage took."""

    def __init__(self, commands: Commands, defaults: Defaults) -> None:
        self.seconds: dict[str, float] = {}
        self._verbs, self._defaults = commands, defaults

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.seconds[stage] = time.monotonic() - start

    def do(self, stage: str, *words: object) -> Any:
        """Does the command of these words and returns its document."""
        command = [str(word) for word in words]
        say(f"\n$ lgd {shlex.join(command)}")
        with self.timed(stage):
            answer = dispatch(command, self._verbs, self._defaults)
        for line in _lines(answer):
            say(line) if isinstance(line, str) else progress_console.print(line)
        return _document(answer)


def parsed(
    command: Command, words: list[str], program: str, *, defaults: dict[str, Any]
) -> Callable[[], "Answer | CommandResult"]:
    """The call that the words ask for. defaults: of the verb's parameters, in the place of its own.

    Raises UsageError, in one line, for words that are wrong."""

    @functools.wraps(command)
    def call(*values: Any, **named: Any) -> Callable[[], "Answer | CommandResult"]:
        return functools.partial(command, *values, **named)

    signature = inspect.signature(command)
    parameters = [p.replace(default=defaults.get(p.name, p.default)) for p in signature.parameters.values()]
    call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(call, args=words, prog=program, config=(tyro.conf.FlagCreatePairsOff,))
    except SystemExit as stop:
        if stop.code:
            raise UsageError(one_line(complaint.getvalue(), program)) from stop
        raise


def one_line(box: str, program: str) -> str:
    """The message inside the box that the option parser draws."""
    lines = [line.strip("│╭╮╰╯─ ") for line in box.splitlines()[1:]]
    message = " ".join(itertools.takewhile(bool, lines))
    return f"{message}; `{program} --help` explains the options"


@contextlib.contextmanager
def stdout_for_the_answer(alone: bool) -> Iterator[IO[str]]:
    """The standard output; while `alone`, whatever else prints to it goes to stderr."""
    sys.stdout.flush()
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as output:
        if alone:
            os.dup2(2, 1)
        try:
            yield output
        finally:
            sys.stdout.flush()
            os.dup2(output.fileno(), 1)


def run(words: list[str], commands: Commands, defaults: Defaults) -> None:
    """The `lgd` command."""
    run_and_print(words, lambda: dispatch(words, commands, defaults))


def run_and_print(words: list[str], call: Callable[[], "Answer | CommandResult"]) -> None:
    """Makes the call that the words ask for and prints its answer: exit 0 done, 1 failed, 2 wrong usage; with --json
    stdout is one JSON document."""
    as_json = "--json" in words
    try:
        with stdout_for_the_answer(alone=as_json) as output:
            answer = call()
            if as_json:
                output.write(json.dumps(_document(answer), indent=2, ensure_ascii=False) + "\n")
            else:
                console = Console(file=output, highlight=False)
                for line in _lines(answer):
                    console.print(line, soft_wrap=isinstance(line, str), markup=False)
        if answer.failed:
            raise UserError(answer.failed)
    except UserError as error:
        say(f"lgd: {error}")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        say("lgd: stopped; run the same command again to go on")
        sys.exit(130)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)


def _lines(answer: "Answer | CommandResult") -> list[Line]:
    return answer.lines() if isinstance(answer, CommandResult) else answer.text


def _document(answer: "Answer | CommandResult") -> Any:
    return answer.document() if isinstance(answer, CommandResult) else answer.document
