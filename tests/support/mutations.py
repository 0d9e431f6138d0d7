"""Damaged and forged files: mutations of a valid one, and a child process in which they are read.

    kinds = {"best.json": (folder / "best.json", json_mutations, read_best)}
    outcomes = read_mutated(kinds, number=100)

Each mutated file is read in a child process, since a bad reader may end the process or hang. The outcome of a file is
`same` (the reader returned what it returns for the valid file), `different`, `refused` (a UserError of one line that
names the file), or what went wrong: a traceback, a signal, a time-out.

LGD_MUTATIONS sets the number of random mutations per kind of file."""

import json
import multiprocessing
import os
import pickle
import random
import resource
import signal
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from lgd.pipeline.console.errors import UserError

MUTATIONS = int(os.environ.get("LGD_MUTATIONS", "0"))
TIME_OUT_S = 20  # for one file
MEMORY = 12 << 30  # address space of the child, bytes
ABSURD = [0, -1, 1, 1 << 31, -(1 << 31), 1 << 32, 1 << 53, 1 << 62, (1 << 63) - 1, -(1 << 63)]

Mutation = tuple[str, bytes]  # what was done, and the content
Mutate = Callable[[bytes, random.Random], bytes]


class Kind(NamedTuple):
    """A kind of file. named: mutations that are always tried. read: takes the folder of the file's dataset. other: in
    the errors that name another file with which this one does not agree."""

    path: Path
    mutate: Mutate
    read: Callable[[Path], Any]
    named: Mapping[str, bytes] = {}
    other: str = ""


class Outcome(NamedTuple):
    """text: same, different, refused, or what went wrong. detail: the message or the traceback."""

    kind: str
    mutation: str
    text: str
    detail: str = ""


def mutate_bytes(content: bytes, numbers: random.Random) -> bytes:
    """Cut a file off, flip bits, or overwrite bytes and integers; more often near its start and end, where most formats
    have their structure."""
    changed = bytearray(content)
    if numbers.random() < 0.1:
        return content[: numbers.randrange(len(content))]
    if numbers.random() < 0.03:
        return content + bytes(numbers.randrange(1, 100))
    for _ in range(numbers.choice([1, 1, 1, 2, 5])):
        near = min(int(numbers.expovariate(1 / 1500)), len(content) - 1)
        first = numbers.choice([numbers.randrange(len(content)), near, len(content) - 1 - near])
        way = numbers.random()
        if way < 0.4:
            changed[first] ^= 1 << numbers.randrange(8)
        elif way < 0.6:
            changed[first] = numbers.choice([0, 1, 127, 128, 255])
        else:
            size = numbers.choice([4, 8])
            value = numbers.choice([*ABSURD, numbers.randrange(1 << 16)]) & ((1 << 8 * size) - 1)
            first -= first % size
            changed[first : first + size] = value.to_bytes(size, "little")
    return bytes(changed[: len(content)])


def mutate_json(content: bytes, numbers: random.Random) -> bytes:
    """Remove or replace a value of a JSON document, rename a field, or damage its bytes."""
    if numbers.random() < 0.3:
        return mutate_bytes(content, numbers)
    document = json.loads(content)
    places = list(_places(document))
    container, name = numbers.choice(places)
    way = numbers.random()
    if way < 0.2:
        del container[name]
    elif way < 0.3 and isinstance(container, dict):
        container[f"{name}-"] = container.pop(name)
    else:
        value = container[name]
        number = numbers.choice([*ABSURD, 1 << 100, 0.5, -0.5, 1e308, float("nan"), float("inf")])
        others: list[Any] = [None, True, "", "text", [], {}, [[]], {"x": 1}, number, number, number, "../../x", "a\nb"]
        container[name] = numbers.choice(others) if numbers.random() < 0.8 else [value, value]
    return json.dumps(document).encode()


def named_json(content: bytes) -> dict[str, bytes]:
    """Return mutations of every JSON document."""
    field = json.dumps(next(iter(json.loads(content)))).encode()
    return {
        "empty": b"",
        "an empty object": b"{}",
        "null": b"null",
        "a list": b"[]",
        "text": b'"text"',
        "another format": b"\x89PNG\r\n\x1a\n" + content,
        "not UTF-8": content.replace(b'"', b'"\xff', 1),
        "nested lists": b"[" * 100_000 + b"]" * 100_000,
        "nested objects": b'{"x":' * 100_000 + b"1" + b"}" * 100_000,
        "nested in a field": content.replace(b"{", b"{" + field + b": " + b"[" * 5000 + b"]" * 5000 + b", ", 1),
        "a field twice": content.replace(b"{", b"{" + field + b": 1, ", 1),
        "a very large number": content.replace(b"{", b'{"more": ' + b"9" * 10_000 + b", ", 1),
        "a number beyond a float": content.replace(b"{", b'{"more": 1e999, ', 1),
        "NaN": content.replace(b"{", b'{"more": NaN, ', 1),
        "cut off": content[: len(content) // 2],
    }


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every place of a document: the list or object, and the index or name in it."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in list(pairs):
        yield value, name
        yield from _places(inner)


def read_mutated(folder: Path, kinds: Mapping[str, Kind], number: int) -> list[Outcome]:
    """Read every kind of file with its named and `number` random mutations; return an outcome for each.

    folder: of the dataset or run that the readers open. It is changed while this runs, and as before at the end."""
    jobs = [(name, mutation) for name, kind in kinds.items() for mutation in [*kind.named, *range(number)]]
    outcomes: list[Outcome] = []
    valid = {name: kind.path.read_bytes() for name, kind in kinds.items()}
    context = multiprocessing.get_context("spawn")
    while len(outcomes) < len(jobs):
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=_read_all, args=(folder, kinds, jobs[len(outcomes) :], sender))
        child.start()
        sender.close()
        before = len(outcomes)
        try:
            while True:
                if not receiver.poll(TIME_OUT_S + 60):
                    child.kill()
                outcomes.append(receiver.recv())
        except EOFError:
            child.join()
        for name, kind in kinds.items():
            kind.path.write_bytes(valid[name])
        if len(outcomes) < len(jobs):
            died = f"signal {-(child.exitcode or 0)}" if (child.exitcode or 0) < 0 else f"exit code {child.exitcode}"
            if len(outcomes) == before and child.exitcode == 1:
                raise RuntimeError("the child could not start")
            name, which = jobs[len(outcomes)]
            outcomes.append(Outcome(name, str(which), died))
    return outcomes


def mutation(kind: Kind, name: str, which: str | int) -> bytes:
    """Return the content of a named mutation, or of the random one with this number."""
    if isinstance(which, str):
        return kind.named[which]
    return kind.mutate(kind.path.read_bytes(), random.Random(f"{name} {which}"))


def _read_all(folder: Path, kinds: Mapping[str, Kind], jobs: list[tuple[str, str | int]], sender: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    expected: dict[str, bytes] = {}
    for name, which in jobs:
        kind = kinds[name]
        if name not in expected:
            expected[name] = pickle.dumps(kind.read(folder))
        valid = kind.path.read_bytes()
        kind.path.write_bytes(mutation(kind, name, which))
        signal.alarm(TIME_OUT_S)  # its default action ends the process
        try:
            found = pickle.dumps(kind.read(folder))
            outcome = Outcome(name, str(which), "same" if found == expected[name] else "different")
        except UserError as error:
            text = str(error)
            problem = (
                "" if kind.path.name in text or (kind.other and kind.other in text) else " without the name of the file"
            )
            problem += " of several lines" if "\n" in text else ""
            outcome = Outcome(name, str(which), f"refused{problem}", text)
        except BaseException:
            outcome = Outcome(name, str(which), "traceback", traceback.format_exc())
        signal.alarm(0)
        kind.path.write_bytes(valid)
        sender.send(outcome)


def table(outcomes: list[Outcome]) -> str:
    """Return the number of files by kind and outcome, as text."""
    counts: dict[str, Counter[str]] = {}
    for outcome in outcomes:
        counts.setdefault(outcome.kind, Counter())[outcome.text] += 1
    lines = [f"{len(outcomes)} files"]
    for kind, found in counts.items():
        lines.append(f"{kind:24} {sum(found.values()):6}: " + ", ".join(f"{n} {text}" for text, n in found.items()))
    return "\n".join(lines)
