"""Sorting networks on vectors in functions that numba compiles: each lane is sorted by itself.

Values that are not used cost nothing: LLVM removes their part of a network.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from lgd.preprocessing.flow.numba_vectors import (
    Array,
    Implementation,
    Vector,
    Vectors,
    address,
    select_extreme,
    vector_type,
)

_unpack: Any = cgutils.unpack_tuple  # without annotations
_tuple_type: Any = types.UniTuple


def _merge_networks(builder: Any, a: Sequence[Any], b: Sequence[Any]) -> list[Any]:
    """Merge two sorted sequences of LLVM vectors, lane by lane: Batcher's odd-even merge (Knuth, TAOCP 3, 5.3.4)."""
    if not a or not b:
        return [*a, *b]
    if len(a) == len(b) == 1:
        return [select_extreme(builder, "<", a[0], b[0]), select_extreme(builder, ">", a[0], b[0])]
    odd = _merge_networks(builder, a[::2], b[::2])
    even = _merge_networks(builder, a[1::2], b[1::2])
    merged = odd[:1]
    for i in range(max(len(odd) - 1, len(even))):
        if i < len(even) and i + 1 < len(odd):
            merged += _merge_networks(builder, [even[i]], [odd[i + 1]])
        else:
            merged += even[i : i + 1] or odd[i + 1 : i + 2]
    return merged


def _sort_network(builder: Any, values: Sequence[Any]) -> list[Any]:
    """Sort LLVM vectors, lane by lane."""
    if len(values) == 1:
        return list(values)
    half = len(values) // 2
    return _merge_networks(builder, _sort_network(builder, values[:half]), _sort_network(builder, values[half:]))


def _sort(typingctx: Any, values: Any) -> Implementation:
    """Sort a tuple of vectors, lane by lane."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.make_tuple(builder, signature.return_type, _sort_network(builder, _unpack(builder, args[0])))

    return values(values), codegen


def _merge(typingctx: Any, a: Any, b: Any) -> Implementation:
    """Merge two sorted tuples of vectors, lane by lane. Values that are not used cost nothing: LLVM removes them."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lists = [_unpack(builder, arg) for arg in args]
        return context.make_tuple(builder, signature.return_type, _merge_networks(builder, *lists))

    return _tuple_type(vector_type, len(a) + len(b))(a, b), codegen


def _part(typingctx: Any, vectors: Any, start: Any, count: Any) -> Implementation:
    """Return vectors[start : start + count]; start and count are constants."""
    first, last = start.literal_value, start.literal_value + count.literal_value

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        chosen = _unpack(builder, args[0])[first:last]
        return context.make_tuple(builder, signature.return_type, chosen)

    return _tuple_type(vector_type, last - first)(vectors, start, count), codegen


def _middle(typingctx: Any, a: Any, b: Any) -> Implementation:
    """Return the middle one of n + 1 and n sorted vectors, lane by lane.

    It is the smallest of max(a[i], b[n - 1 - i]) and a[n]."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        *low, result = _unpack(builder, args[0])
        for x, y in zip(low, reversed(_unpack(builder, args[1])), strict=True):
            result = select_extreme(builder, "<", result, select_extreme(builder, ">", x, y))
        return result

    return vector_type(a, b), codegen


def _load_rows(typingctx: Any, array: Any, index: Any, stride: Any, count: Any) -> Implementation:
    """Return `count` (a constant) vectors, `stride` floats apart."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        at, vectors = args[1], []
        for _ in range(count.literal_value):
            vectors.append(builder.load(address(context, builder, signature.args[0], args[0], at), align=4))
            at = builder.add(at, args[2])
        return context.make_tuple(builder, signature.return_type, vectors)

    return _tuple_type(vector_type, count.literal_value)(array, types.intp, types.intp, count), codegen


def _store_rows(typingctx: Any, array: Any, index: Any, stride: Any, vectors: Any) -> Implementation:
    """Store a tuple of vectors, `stride` floats apart."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        at = args[1]
        for vector in _unpack(builder, args[3]):
            builder.store(vector, address(context, builder, signature.args[0], args[0], at), align=4)
            at = builder.add(at, args[2])
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, vectors), codegen


# To mypy these are functions of Python.
sort = cast("Callable[[Vectors], Vectors]", intrinsic(_sort))
merge = cast("Callable[[Vectors, Vectors], Vectors]", intrinsic(_merge))
part = cast("Callable[[Vectors, int, int], Vectors]", intrinsic(prefer_literal=True)(_part))
middle = cast("Callable[[Vectors, Vectors], Vector]", intrinsic(_middle))
load_rows = cast("Callable[[Array, int, int, int], Vectors]", intrinsic(prefer_literal=True)(_load_rows))
store_rows = cast("Callable[[Array, int, int, Vectors], None]", intrinsic(_store_rows))
