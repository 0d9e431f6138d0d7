"""Configurations in JSON files: written as flat dictionaries, `{"optimizer.lr": 0.02, ...}`, and checked when read.

Compatibility: what an earlier minor version wrote can be read. A field that is missing in the file is newer than the
file and gets its default, so the default of a new field must be what earlier versions did. A renamed field is also read
under its old name: add it to RENAMED_FIELDS. A field that this version does not have was written by a newer version and
is refused, because to ignore it could change the meaning of the others."""

import dataclasses
import json
import typing
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.storage.checked_json import explain, parse_json

T = TypeVar("T")

RENAMED_FIELDS: Mapping[str, str] = MappingProxyType(
    {  # name in lgd 0.1 -> name since lgd 0.2
        "batch": "batch_size",
        "freeze_normalisation": "freeze_normalization",
        "micro_batch": "micro_batch_size",
        "optimizer.clip": "optimizer.max_grad_norm",
        "optimizer.rate": "optimizer.lr",
        "transform.colour_jitter": "transform.color_jitter",
    }
)


def to_flat_dict(config: Any, prefix: str = "") -> dict[str, Any]:
    """Return the fields of a configuration, a dataclass, with nested names joined by dots: `optimizer.lr`."""
    flat: dict[str, Any] = {}
    for name, value in ((f.name, getattr(config, f.name)) for f in dataclasses.fields(config)):
        flat |= to_flat_dict(value, f"{prefix}{name}.") if dataclasses.is_dataclass(value) else {prefix + name: value}
    return flat


def from_flat_dict(kind: type[T], flat: Mapping[str, Any], source: str, *, written_by: str | None = None) -> T:
    """Return the configuration of class `kind` with the fields of `to_flat_dict`, as JSON gives them back.

    source: name of the file, for errors. written_by: version of lgd that wrote it, if known.
    Raises UserError that names the file and the field for an unknown field and for a value of a wrong type."""
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *groups, last = RENAMED_FIELDS.get(name, name).split(".")
        level = nested
        for group in groups:
            level = level.setdefault(group, {})
            if not isinstance(level, dict):
                raise UserError(f"{source}: field {group!r} is both a value and a group of fields")
        if isinstance(level.get(last), dict):
            raise UserError(f"{source}: field {name!r} is both a value and a group of fields")
        if last in level:
            raise UserError(f"{source}: field {'.'.join([*groups, last])!r} appears under its old and its new name")
        level[last] = value
    return from_json(kind, json.dumps(nested).encode(), source, written_by=written_by)


def from_json(kind: type[T], content: bytes, source: str, *, written_by: str | None = None) -> T:
    """Return the dataclass `kind` with the fields of a JSON document; types are checked strictly.

    Parameters and errors are those of `from_flat_dict`; a document that is not JSON raises UserError as well."""
    from pydantic import TypeAdapter, ValidationError  # here, because it takes time that most commands do not need

    document = parse_json(content, source, finite=False)
    if unknown := _unknown_field(kind, document):
        writer = f"lgd {written_by}" if written_by else "a newer version of lgd"
        raise UserError(
            f"{source}: unknown field {unknown!r}: it was written by {writer}; use that version or a later one"
        )
    try:
        return TypeAdapter(kind).validate_json(content, strict=True)
    except ValidationError as error:
        raise UserError(f"{source}: {explain(error.errors(include_url=False))}") from error
    except UserError as error:  # a check of the dataclass itself
        raise UserError(f"{source}: {error}") from error


def option_name(field: str) -> str:
    """Return the command-line option of a field: `optimizer.max_grad_norm` -> --optimizer.max-grad-norm."""
    return "--" + field.replace("_", "-")


def _unknown_field(kind: Any, document: Any, prefix: str = "") -> str | None:
    """Return the name of the first field of the document that the dataclass does not have."""
    if not isinstance(document, dict):
        return None  # a wrong type, which pydantic reports
    hints = typing.get_type_hints(kind)
    names = {f.name for f in dataclasses.fields(kind)}
    for name, value in document.items():
        if name not in names:
            return f"{prefix}{name}"
        inner = (
            _unknown_field(hints[name], value, f"{prefix}{name}.") if dataclasses.is_dataclass(hints[name]) else None
        )
        if inner:
            return inner
    return None
