"""Vectors of LANES floats in functions that numba compiles: one vector instruction per operation on any processor.

LLVM's loop vectorizer uses half the width of AVX-512 and gives up on loops over a dozen rows. With these vectors a
kernel states its instructions itself; LLVM splits a vector where the processor's are shorter. Operations are those of
IEEE 754 and are never re-associated or contracted, so results do not depend on the processor.

    v = load(row, i) + splat(step) * sqrt(load(row, i + 1))
    store(row, i, maximum(v, splat(ZERO)))

Nothing here checks bounds.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, models, register_model

LANES = 16  # floats of a vector: 64 bytes, a cache line and the widest vector of current processors

Array = npt.NDArray[np.float32]
Vector = Any  # a vector in a compiled function
Vectors = tuple[Vector, ...]

FLOATS = ir.VectorType(ir.FloatType(), LANES)
Implementation = tuple[Any, Callable[..., Any]]  # signature and code generator of a numba intrinsic


# Parts of numba without annotations.
_Type: Any = types.Type
_PrimitiveModel: Any = models.PrimitiveModel
_ConcreteTemplate: Any = ConcreteTemplate
_signature: Any = signature
_infer_global: Any = infer_global
_lower_builtin: Any = lower_builtin
_tuple_type: Any = types.UniTuple
_declare: Any = cgutils.get_or_insert_function


class _VectorType(_Type):  # type: ignore[misc]  # its base class is Any
    """numba's type of a vector."""

    def __init__(self) -> None:
        super().__init__(name=f"float32x{LANES}")


vector_type = _VectorType()


class _VectorModel(_PrimitiveModel):  # type: ignore[misc]  # its base class is Any
    """The values of a vector are those of LLVM."""

    def __init__(self, data_model_manager: Any, numba_type: Any) -> None:
        super().__init__(data_model_manager, numba_type, FLOATS)


register_model(_VectorType)(_VectorModel)


def _define_operator(function: Callable[..., Any], instruction: str) -> None:
    """Let a Python operator on two vectors compile to an instruction of LLVM."""

    class Template(_ConcreteTemplate):  # type: ignore[misc]  # its base class is Any
        cases = (_signature(vector_type, vector_type, vector_type),)

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return getattr(builder, instruction)(*args)

    _infer_global(function)(Template)
    _lower_builtin(function, vector_type, vector_type)(lower)


for _function, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _define_operator(_function, _instruction)


def address(context: Any, builder: Any, array_type: Any, array: Any, index: Any, vector: Any = FLOATS) -> Any:
    """Return the address of array[index] as a pointer to an LLVM vector; array: 1-D and contiguous."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())


def select_lanes(builder: Any, first: Any, second: Any, lanes: Sequence[int]) -> Any:
    """Return an LLVM vector of the given lanes of two vectors, the second's being numbered after the first's."""
    mask = ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), list(lanes))
    return builder.shuffle_vector(first, second, mask)


def _load(typingctx: Any, array: Any, index: Any) -> Implementation:
    """Return array[index : index + LANES]."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(address(context, builder, signature.args[0], args[0], args[1]), align=4)

    return vector_type(array, types.intp), codegen


def _store(typingctx: Any, array: Any, index: Any, vector: Any) -> Implementation:
    """array[index : index + LANES] = vector"""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[2], address(context, builder, signature.args[0], args[0], args[1]), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector_type), codegen


def _splat(typingctx: Any, value: Any) -> Implementation:
    """Return a vector of equal values."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        undefined = ir.Constant(FLOATS, ir.Undefined)
        one = builder.insert_element(undefined, args[0], ir.Constant(ir.IntType(32), 0))
        return select_lanes(builder, one, undefined, [0] * LANES)

    return vector_type(types.float32), codegen


def _unary(instruction: str) -> Callable[..., Implementation]:
    """Return the implementation of an LLVM intrinsic of one vector."""

    def implementation(typingctx: Any, vector: Any) -> Implementation:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            function_type = ir.FunctionType(FLOATS, [FLOATS])
            name = f"llvm.{instruction}.v{LANES}f32"
            return builder.call(_declare(builder.module, function_type, name), args)

        return vector_type(vector_type), codegen

    return implementation


def select_extreme(builder: Any, comparison: str, a: Any, b: Any) -> Any:
    """Return in each lane b if `b comparison a`, else a, as Python's min ("<") and max (">"): also for NaN and -0."""
    return builder.select(builder.fcmp_ordered(comparison, b, a), b, a)


def _minimum(typingctx: Any, a: Any, b: Any) -> Implementation:
    return vector_type(vector_type, vector_type), lambda context, builder, signature, args: select_extreme(
        builder, "<", *args
    )


def _maximum(typingctx: Any, a: Any, b: Any) -> Implementation:
    return vector_type(vector_type, vector_type), lambda context, builder, signature, args: select_extreme(
        builder, ">", *args
    )


def _multiply_add(typingctx: Any, a: Any, b: Any, c: Any) -> Implementation:
    """Return a * b + c, rounded once: for measurements; it is slow on processors without the instruction."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        function_type = ir.FunctionType(FLOATS, [FLOATS] * 3)
        return builder.call(_declare(builder.module, function_type, f"llvm.fma.v{LANES}f32"), args)

    return vector_type(vector_type, vector_type, vector_type), codegen


def _add_lanes(typingctx: Any, vector: Any) -> Implementation:
    """Return the sum of the lanes, halves first."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        (total,) = args
        count = LANES
        while count > 1:
            count //= 2
            low, high = range(count), range(count, 2 * count)
            total = builder.fadd(select_lanes(builder, total, total, low), select_lanes(builder, total, total, high))
        return builder.extract_element(total, ir.Constant(ir.IntType(32), 0))

    return types.float32(vector_type), codegen


def _truncate(typingctx: Any, vector: Any) -> Implementation:
    """Round towards zero."""
    return _unary("trunc")(typingctx, vector)


def _lane_numbers(typingctx: Any) -> Implementation:
    """Return 0, 1, 2, ..."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return ir.Constant(FLOATS, [float(lane) for lane in range(LANES)])

    return vector_type(), codegen


def _equal(typingctx: Any, a: Any, b: Any) -> Implementation:
    """Return 1 where the lanes are equal, else 0."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        one, zero = (ir.Constant(FLOATS, [value] * LANES) for value in (1.0, 0.0))
        return builder.select(builder.fcmp_ordered("==", *args), one, zero)

    return vector_type(vector_type, vector_type), codegen


def _where_greater(typingctx: Any, a: Any, b: Any, if_greater: Any, otherwise: Any) -> Implementation:
    """Return the lanes of `if_greater` where a > b, else those of `otherwise`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", args[0], args[1]), args[2], args[3])

    return vector_type(vector_type, vector_type, vector_type, vector_type), codegen


def _store_interleaved(typingctx: Any, array: Any, index: Any, a: Any, b: Any, c: Any, d: Any) -> Implementation:
    """array[index : index + 4 LANES] = a[0], b[0], c[0], d[0], a[1], ..."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        both = range(2 * LANES)
        first, second = (select_lanes(builder, args[i], args[i + 1], both) for i in (2, 4))
        lanes = [component * LANES + lane for lane in range(LANES) for component in range(4)]
        wide = ir.VectorType(ir.FloatType(), 4 * LANES)
        pointer = address(context, builder, signature.args[0], args[0], args[1], wide)
        builder.store(select_lanes(builder, first, second, lanes), pointer, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector_type, vector_type, vector_type, vector_type), codegen


def _load_interleaved(typingctx: Any, array: Any, index: Any) -> Implementation:
    """Return four vectors a, b, c, d of array[index : index + 4 LANES] = a[0], b[0], c[0], d[0], a[1], ..."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        wide = ir.VectorType(ir.FloatType(), 4 * LANES)
        values = builder.load(address(context, builder, signature.args[0], args[0], args[1], wide), align=4)
        vectors = [select_lanes(builder, values, values, range(k, 4 * LANES, 4)) for k in range(4)]
        return context.make_tuple(builder, signature.return_type, vectors)

    return _tuple_type(vector_type, 4)(array, types.intp), codegen


# To mypy these are functions of Python.
load = cast("Callable[[Array, int], Vector]", intrinsic(_load))
store = cast("Callable[[Array, int, Vector], None]", intrinsic(_store))
splat = cast("Callable[[np.float32], Vector]", intrinsic(_splat))
sqrt = cast("Callable[[Vector], Vector]", intrinsic(_unary("sqrt")))
absolute = cast("Callable[[Vector], Vector]", intrinsic(_unary("fabs")))
minimum = cast("Callable[[Vector, Vector], Vector]", intrinsic(_minimum))
maximum = cast("Callable[[Vector, Vector], Vector]", intrinsic(_maximum))
multiply_add = cast("Callable[[Vector, Vector, Vector], Vector]", intrinsic(_multiply_add))
add_lanes = cast("Callable[[Vector], np.float32]", intrinsic(_add_lanes))
truncate = cast("Callable[[Vector], Vector]", intrinsic(_truncate))
lane_numbers = cast("Callable[[], Vector]", intrinsic(_lane_numbers))
equal = cast("Callable[[Vector, Vector], Vector]", intrinsic(_equal))
where_greater = cast("Callable[[Vector, Vector, Vector, Vector], Vector]", intrinsic(_where_greater))
store_interleaved = cast("Callable[[Array, int, Vector, Vector, Vector, Vector], None]", intrinsic(_store_interleaved))
load_interleaved = cast("Callable[[Array, int], tuple[Vector, Vector, Vector, Vector]]", intrinsic(_load_interleaved))
