"""JSON that was written earlier and may be damaged or forged by now: every file is read with these functions.

    @dataclass(frozen=True)
    class Best:
        step: int
        top1: float

    best = read_json(Best, storage.read("best.json"), storage.display("best.json"))

`parse_json` refuses what Python's parser accepts and JSON or its readers do not: NaN and Infinity, numbers beyond the
range of a float, a name that appears twice in an object, and nesting that exhausts the stack. `read_json` also checks
names and types, strictly: 4.0 is not a whole number, and neither is true. Every error is one line that names the file
and, where there is one, the field.
"""

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from lgd.pipeline.console.errors import UserError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

T = TypeVar("T")

MAX_DEPTH = 100  # of nested lists and objects


class DamagedFile(UserError):
    """A file does not have the content that it was written with."""


def parse_json(content: bytes | str, source: str, *, finite: bool = True) -> Any:
    """Return a JSON document as Python has it.

    source: name of the file, for errors. finite: refuse NaN and Infinity, which Python writes but JSON does not have.
    Raises DamagedFile, which names the file."""
    try:
        document = json.loads(
            content,
            object_pairs_hook=_object,
            parse_constant=_refuse_constant if finite else None,
            parse_float=_finite_float if finite else None,
        )
    except RecursionError:
        raise DamagedFile(f"{source} is damaged: its lists and objects are nested too deeply") from None
    except ValueError as error:
        raise DamagedFile(f"{source} is damaged: it is not valid JSON ({error})") from error
    if _deeper_than(document, MAX_DEPTH):
        raise DamagedFile(f"{source} is damaged: its lists and objects are nested too deeply")
    return document


def read_json(kind: type[T], content: bytes | str, source: str, *, advice: str = "") -> T:
    """Return a JSON document as a dataclass, NamedTuple or other type of pydantic; types are checked strictly.

    Names that the type does not have are ignored. source: name of the file, for errors. advice: what to do, the end of
    the message.
    Raises DamagedFile, which names the file and the field."""
    from pydantic import TypeAdapter, ValidationError  # here, because it takes time that most commands do not need

    end = f": {advice}" if advice else ""
    try:
        parse_json(content, source)
    except DamagedFile as error:
        raise DamagedFile(f"{error}{end}") from error
    try:
        return TypeAdapter(kind).validate_json(content, strict=True)
    except ValidationError as error:
        raise DamagedFile(f"{source}: {explain(error.errors(include_url=False))}{end}") from error
    except UserError as error:  # a check of the type itself
        raise DamagedFile(f"{source}: {error}{end}") from error


def check_range(name: str, value: float | None, low: float, *, high: float) -> None:
    """Raise UserError, which names the field, for a number out of its range; None is in every range."""
    if value is not None and not low <= value <= high:
        raise UserError(f"field {name!r} is {value}, must be {low} to {high}")


_EXPECTED = {  # by pydantic's type of error
    "bool_type": "true or false",
    "dataclass_type": "a group of fields",
    "dict_type": "a group of fields",
    "finite_number": "a finite number",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "list_type": "a list",
    "string_type": "text",
    "too_long": "a shorter list",
    "tuple_type": "a list",
}
SHOWN_CHARACTERS = 60  # of a wrong value in a message


def explain(errors: Sequence["ErrorDetails"]) -> str:
    """Return the text of the first of pydantic's errors with the name of the field, on one line."""
    error = errors[0]
    if _is_alternative(error):  # one error for each type that the value may have
        place = error["loc"][:-1]
        same = [other for other in errors if _is_alternative(other) and other["loc"][:-1] == place]
        expected = " or ".join(_expected(other) for other in same)
        error["loc"] = place
    else:
        expected = _expected(error)
    # Names of objects in a list come after a number.
    field = ".".join(part for part in error["loc"] if isinstance(part, str))
    in_list = bool(error["loc"]) and isinstance(error["loc"][-1], int)
    if not field:
        return f"it must be {expected}"
    if error["type"] == "missing":
        return f"field {field!r} " + ("is a list with too few values" if in_list else "is missing")
    value = repr(error["input"]) if isinstance(error["input"], str) else json.dumps(error["input"], default=str)
    if len(value) > SHOWN_CHARACTERS:
        value = f"{value[:SHOWN_CHARACTERS]}..."
    return f"field {field!r} {'contains' if in_list else 'is'} {value}, must be {expected}"


def _is_alternative(error: "ErrorDetails") -> bool:
    """Return whether the place of an error ends with pydantic's name of a type: the field may have several types."""
    last = str(error["loc"][-1]) if error["loc"] else ""
    return last in ("bool", "int", "float", "str") or last.startswith("literal[")


def _expected(error: "ErrorDetails") -> str:
    if error["type"] == "literal_error":
        return str(error["ctx"]["expected"]).replace("'", "")
    return _EXPECTED.get(error["type"], error["msg"])


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} appears twice in one object")
    return content


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:SHOWN_CHARACTERS]} is too large")
    return value


def _deeper_than(document: Any, depth: int) -> bool:
    """Return whether lists and objects are nested more than `depth` times."""
    level = [document]
    for _ in range(depth):
        inner: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                inner += value.values()
            elif isinstance(value, list):
                inner += value
        level = [value for value in inner if isinstance(value, dict | list)] if inner else []
        if not level:
            return False
    return True
