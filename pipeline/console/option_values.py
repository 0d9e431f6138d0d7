"""Make values from the words of a command line: rules for tyro.

Errors are ValueErrors whose text completes a sentence that begins with the name of the option: "must be a number"."""

import os
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

SHOWN_VALUE = 20  # characters of a wrong value that are shown


def value_rules() -> ConstructorRegistry:
    """Return the rules by which tyro makes values from words."""
    rules = ConstructorRegistry()
    rules.primitive_rule(_number_rule)
    rules.primitive_rule(_path_rule)
    rules.primitive_rule(_choice_rule)
    rules.primitive_rule(_tuple_rule)
    rules.primitive_rule(_union_rule)
    rules.primitive_rule(_switch_rule)  # before that for other unions
    return rules


def _short(text: str) -> str:
    return repr(text if len(text) <= SHOWN_VALUE else text[:SHOWN_VALUE] + "...")


def _number_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    kind: Any = info.type
    if kind not in (int, float):
        return None

    def parse(texts: list[str]) -> float:
        try:
            return kind(texts[0])  # type: ignore[no-any-return]  # int or float
        except ValueError:
            noun = "a whole number" if kind is int else "a number"
            raise ValueError(f"must be {noun}, not {_short(texts[0])}") from None

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=kind.__name__,
        instance_from_str=parse,
        is_instance=lambda value: isinstance(value, int if kind is int else (int, float)),
        str_from_instance=lambda value: [str(value).removesuffix(".0")],
    )


def _path_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """A path, in which `~` at the start means the home folder even where no shell has replaced it (--out=~/data)."""
    if info.type is not Path:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=lambda texts: Path(os.path.expanduser(texts[0])),
        is_instance=lambda value: isinstance(value, Path),
        str_from_instance=lambda value: [str(value)],
    )


def _choice_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    if get_origin(info.type) is not Literal:
        return None
    choices = {str(choice): choice for choice in get_args(info.type)}

    def parse(texts: list[str]) -> Any:
        if texts[0] not in choices:
            raise ValueError(f"must be {' or '.join(choices)}, not {_short(texts[0])}")
        return choices[texts[0]]

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=",".join(choices),
        instance_from_str=parse,
        is_instance=lambda value: value in choices.values(),
        str_from_instance=lambda value: [str(value)],
    )


def _tuple_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """`tuple[X, Y]` and `tuple[X, ...]` of values of one word each."""
    if get_origin(info.type) is not tuple:
        return None
    kinds = [kind for kind in get_args(info.type) if kind is not Ellipsis]
    repeated = len(kinds) < len(get_args(info.type))
    found = [ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(kind, info.markers)) for kind in kinds]
    specs = [spec for spec in found if isinstance(spec, PrimitiveConstructorSpec) and spec.nargs == 1]
    if not specs or len(specs) < len(found):
        return None

    def of_each(count: int) -> list[PrimitiveConstructorSpec[Any]]:
        return specs * count if repeated else specs

    return PrimitiveConstructorSpec(
        nargs="*" if repeated else len(specs),
        metavar=" ".join(spec.metavar for spec in specs),
        instance_from_str=lambda texts: tuple(
            spec.instance_from_str([text]) for spec, text in zip(of_each(len(texts)), texts, strict=True)
        ),
        is_instance=lambda value: isinstance(value, tuple) and len(value) == len(of_each(len(value))),
        str_from_instance=lambda values: [
            word
            for spec, value in zip(of_each(len(values)), values, strict=True)
            for word in spec.str_from_instance(value)
        ],
    )


def _union_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """`X | None` and `X | Y`: the first type that the words fit; the word None is None, which resets a value."""
    if get_origin(info.type) not in (Union, types.UnionType):
        return None
    kinds = [kind for kind in get_args(info.type) if kind is not type(None)]
    optional = len(kinds) < len(get_args(info.type))
    found = [ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(kind, info.markers)) for kind in kinds]
    specs = [spec for spec in found if isinstance(spec, PrimitiveConstructorSpec)]
    if len(specs) < len(found):
        return None  # a union of dataclasses is none of this rule's
    counts = {spec.nargs for spec in specs if isinstance(spec.nargs, int)}
    repeated = any(spec.nargs == "*" for spec in specs)

    def parse(texts: list[str]) -> Any:
        if optional and texts == ["None"]:
            return None
        problem = ValueError(f"needs {' or '.join(map(count_values, sorted(counts)))}, not {len(texts)}")
        for spec in specs:
            if spec.nargs in ("*", len(texts)):
                try:
                    return spec.instance_from_str(texts)
                except ValueError as error:
                    problem = error
        raise problem

    def words(value: Any) -> list[str]:
        return next((spec.str_from_instance(value) for spec in specs if spec.is_instance(value)), [str(value)])

    number_of_words = tuple(sorted(counts | ({1} if optional else set())))
    return PrimitiveConstructorSpec(
        nargs="*" if repeated else number_of_words[0] if len(number_of_words) == 1 else number_of_words,
        metavar=" or ".join(spec.metavar for spec in specs),
        instance_from_str=parse,
        is_instance=lambda value: (optional and value is None) or any(bool(spec.is_instance(value)) for spec in specs),
        str_from_instance=words,
    )


def is_switch(kind: Any) -> bool:
    """Return whether a type is `bool | Literal["auto"]`."""
    return get_origin(kind) in (Union, types.UnionType) and set(get_args(kind)) == {bool, Literal["auto"]}


def _switch_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """`bool | Literal["auto"]`: auto, true or false; the option alone means true."""
    if not is_switch(info.type):
        return None
    choices = {"auto": "auto", "true": True, "false": False}

    def parse(texts: list[str]) -> Any:
        if not texts:
            return True
        if texts[0].lower() not in choices:
            raise ValueError(f"must be auto or true or false, not {_short(texts[0])}")
        return choices[texts[0].lower()]

    return PrimitiveConstructorSpec(
        nargs=(0, 1),
        metavar="{auto,true,false}",
        instance_from_str=parse,
        is_instance=lambda value: value in choices.values(),
        str_from_instance=lambda value: [str(value).lower()],
    )


def count_values(count: int) -> str:
    """Return the number of values of an option in words."""
    return "a value" if count == 1 else f"{count} values"
