"""Short float vectors for numba: a tuple of equal floats that the processor handles as one.

Numba's own loops over a handful of classes stay scalar; these operations write the vector instructions of
LLVM, which fit any processor. A vector is a tuple of n float32, n known to the compiler; arrays are flat
float32, and `at` is an unsigned index that nobody checks. Every operation rounds as single precision does,
save `multiply_add`, which may round once instead of twice.
"""

# ruff: noqa: ANN401 - numba and llvmlite hand over types and values that have no static type

from collections.abc import Callable
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_FUSED = ("contract",)
_ROUND = 12582912.0  # 1.5 * 2^23: adding and subtracting it rounds to a whole number, ties to even


def _lane(index: int) -> Any:
    return ir.Constant(ir.IntType(32), index)


def _vector_type(count: int) -> Any:
    return ir.VectorType(ir.FloatType(), count)


def _constant(value: float, count: int) -> Any:
    return ir.Constant(_vector_type(count), [value] * count)


def _pack(builder: Any, scalars: list[Any]) -> Any:
    vector = ir.Constant(_vector_type(len(scalars)), ir.Undefined)
    for i, scalar in enumerate(scalars):
        vector = builder.insert_element(vector, scalar, _lane(i))
    return vector


def _from_tuple(builder: Any, value: Any, count: int) -> Any:
    return _pack(builder, [builder.extract_value(value, i) for i in range(count)])


def _to_tuple(context: Any, builder: Any, vector: Any, kind: Any) -> Any:
    result = cgutils.get_null_value(context.get_value_type(kind))
    for i in range(kind.count):
        result = builder.insert_value(result, builder.extract_element(vector, _lane(i)), i)
    return result


def _pointer(context: Any, builder: Any, kind: Any, array: Any, at: Any, count: int) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [at]), _vector_type(count).as_pointer())


def _elementwise(emit: Callable[[Any, list[Any], int], Any], first: Any, others: tuple[Any, ...]) -> Any:
    """Typing and code of an operation on vectors like `first`; numbers among the others are spread."""

    def code(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        """Pack the operands into vectors, apply the operation, unpack."""
        vectors = []
        for kind, value in zip((first, *others), args, strict=True):
            if isinstance(kind, types.UniTuple):
                vectors.append(_from_tuple(builder, value, first.count))
            else:
                vectors.append(_pack(builder, [value] * first.count))
        return _to_tuple(context, builder, emit(builder, vectors, first.count), first)

    scalars = [kind if isinstance(kind, types.UniTuple) else types.float32 for kind in others]
    return first(first, *scalars), code


def _across(emit: Callable[[Any, Any, Any], Any], vector: Any) -> Any:
    """Typing and code of an operation that joins a vector's lanes, neighbours first."""

    def code(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        parts = [builder.extract_value(args[0], i) for i in range(vector.count)]
        while len(parts) > 1:
            half = len(parts) // 2
            parts = [emit(builder, a, b) for a, b in zip(parts[:half], parts[half:], strict=True)]
        return parts[0]

    return types.float32(vector), code


@intrinsic
def load(_typing: Any, array: Any, at: Any, like: Any) -> Any:
    """The vector at array[at:], as long as `like`."""

    def code(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, array, args[0], args[1], like.count)
        return _to_tuple(context, builder, builder.load(pointer, align=4), like)

    return like(array, types.uint64, like), code


@intrinsic
def store(_typing: Any, array: Any, at: Any, vector: Any) -> Any:
    """Put a vector at array[at:]."""

    def code(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, array, args[0], args[1], vector.count)
        builder.store(_from_tuple(builder, args[2], vector.count), pointer, align=4)
        return context.get_dummy_value()

    return types.void(array, types.uint64, vector), code


@intrinsic
def add(_typing: Any, a: Any, b: Any) -> Any:
    """The sum a + b; b may be one number, here and below."""
    return _elementwise(lambda builder, v, _: builder.fadd(v[0], v[1]), a, (b,))


@intrinsic
def subtract(_typing: Any, a: Any, b: Any) -> Any:
    """The difference a - b."""
    return _elementwise(lambda builder, v, _: builder.fsub(v[0], v[1]), a, (b,))


@intrinsic
def multiply(_typing: Any, a: Any, b: Any) -> Any:
    """The product a * b."""
    return _elementwise(lambda builder, v, _: builder.fmul(v[0], v[1]), a, (b,))


@intrinsic
def multiply_add(_typing: Any, a: Any, b: Any, c: Any) -> Any:
    """The sum a + b * c."""
    return _elementwise(lambda builder, v, _: _fused(builder, *v), a, (b, c))


@intrinsic
def less(_typing: Any, a: Any, b: Any) -> Any:
    """1 where a < b, else 0."""

    def emit(builder: Any, v: list[Any], count: int) -> Any:
        return builder.select(_below(builder, v[0], v[1]), _constant(1, count), _constant(0, count))

    return _elementwise(emit, a, (b,))


@intrinsic
def larger(_typing: Any, a: Any, b: Any) -> Any:
    """The larger of a and b in each lane."""
    return _elementwise(lambda builder, v, _: _larger(builder, v[0], v[1]), a, (b,))


@intrinsic
def smaller(_typing: Any, a: Any, b: Any) -> Any:
    """The smaller of a and b in each lane."""

    def emit(builder: Any, v: list[Any], _count: int) -> Any:
        return builder.select(_below(builder, v[0], v[1]), v[0], v[1])

    return _elementwise(emit, a, (b,))


@intrinsic
def rounded(_typing: Any, a: Any) -> Any:
    """The nearest whole number, the even one of two; for numbers below 2^22."""

    def emit(builder: Any, v: list[Any], count: int) -> Any:
        return builder.fsub(builder.fadd(v[0], _constant(_ROUND, count)), _constant(_ROUND, count))

    return _elementwise(emit, a, ())


@intrinsic
def exponential(_typing: Any, a: Any) -> Any:
    """The exponential of numbers up to 0, to 2e-7 of its value; below -87 it stays at exp(-87)."""
    return _elementwise(_emit_exponential, a, ())


@intrinsic
def highest(_typing: Any, vector: Any) -> Any:
    """The largest lane."""
    return _across(_larger, vector)


@intrinsic
def total(_typing: Any, vector: Any) -> Any:
    """The sum of the lanes."""
    return _across(lambda builder, a, b: builder.fadd(a, b), vector)


def _below(builder: Any, a: Any, b: Any) -> Any:
    return builder.fcmp_ordered("<", a, b)


def _larger(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(_below(builder, a, b), b, a)


def _fused(builder: Any, a: Any, b: Any, c: Any) -> Any:
    return builder.fadd(a, builder.fmul(b, c, flags=_FUSED), flags=_FUSED)


# exp(x) = 2^n * exp(r), r = x - n ln 2 in [-0.35, 0.35]; Taylor's series to r^6 leaves 1.3e-7
_SERIES = [1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2, 1.0, 1.0]
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4  # their sum is ln 2; n times the first is exact


def _emit_exponential(builder: Any, v: list[Any], count: int) -> Any:
    x = _larger(builder, v[0], _constant(-87.0, count))
    scaled = builder.fmul(x, _constant(1.4426950408889634, count))
    whole = builder.fsub(builder.fadd(scaled, _constant(_ROUND, count)), _constant(_ROUND, count))
    rest = _fused(builder, x, whole, _constant(-_LN2_HIGH, count))
    rest = _fused(builder, rest, whole, _constant(-_LN2_LOW, count))
    value = _constant(_SERIES[0], count)
    for factor in _SERIES[1:]:
        value = _fused(builder, _constant(factor, count), value, rest)
    integers = ir.VectorType(ir.IntType(32), count)
    exponent = builder.add(builder.fptosi(whole, integers), ir.Constant(integers, [127] * count))
    bits = builder.shl(exponent, ir.Constant(integers, [23] * count))
    return builder.fmul(value, builder.bitcast(bits, _vector_type(count)))
