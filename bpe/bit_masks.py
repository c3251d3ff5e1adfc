"""What numba lacks for looking at many bytes at once: one load of 8 bytes, and 64 comparisons in one go.

Each is a few instructions of LLVM's, so they are fast on any CPU that LLVM knows (with AVX-512 `masks64` is six
comparisons of one register; narrower CPUs take several). None checks bounds: buffers end in PADDING spare bytes.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

PADDING = 80  # bytes after the text in every buffer, for loads that run over its end
BYTE_MASKS = np.array([(1 << 8 * n) - 1 for n in range(9)], np.uint64)  # the n lowest bytes of a word

BYTE = ir.IntType(8)
VECTOR = ir.VectorType(BYTE, 64)


def address(context, builder, signature, args):
    """Pointer to array[index]."""
    array = make_array(signature.args[0])(context, builder, args[0])
    return builder.gep(array.data, [args[1]])


def repeated(value: int) -> ir.Constant:
    """The byte 64 times over."""
    return ir.Constant(VECTOR, [value] * 64)


@intrinsic
def load64(typingctx, array, index):
    """array[index : index + 8] as one little-endian uint64."""

    def generate(context, builder, signature, args):
        pointer = builder.bitcast(address(context, builder, signature, args), ir.IntType(64).as_pointer())
        return builder.load(pointer, align=1)

    return types.uint64(array, types.int64), generate


@intrinsic
def masks64(typingctx, array, index):
    """Which of array[index : index + 64] are: ASCII letter, digit, white space, blank, apostrophe, >= 0x80.

    Six uint64; bit k stands for array[index + k].
    """

    def generate(context, builder, signature, args):
        pointer = builder.bitcast(address(context, builder, signature, args), VECTOR.as_pointer())
        data = builder.load(pointer, align=1)
        lower = builder.or_(data, repeated(0x20))
        letter = builder.icmp_unsigned("<", builder.sub(lower, repeated(ord("a"))), repeated(26))
        digit = builder.icmp_unsigned("<", builder.sub(data, repeated(ord("0"))), repeated(10))
        blank = builder.icmp_unsigned("==", data, repeated(0x20))
        control = builder.icmp_unsigned("<", builder.sub(data, repeated(9)), repeated(5))  # \t \n \v \f \r
        apostrophe = builder.icmp_unsigned("==", data, repeated(ord("'")))
        high = builder.icmp_signed("<", data, repeated(0))
        masks = [letter, digit, builder.or_(blank, control), blank, apostrophe, high]
        bits = [builder.bitcast(mask, ir.IntType(64)) for mask in masks]
        return cgutils.pack_array(builder, bits)

    return types.UniTuple(types.uint64, 6)(array, types.int64), generate


@intrinsic
def lowest_bit(typingctx, bits):
    """Index of the lowest bit set; `bits` is not zero."""

    def generate(context, builder, signature, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


@intrinsic
def store64(typingctx, array, index, value):
    """array[index : index + 8] = the 8 bytes of a uint64, lowest first."""

    def generate(context, builder, signature, args):
        pointer = builder.bitcast(address(context, builder, signature, args), ir.IntType(64).as_pointer())
        builder.store(args[2], pointer, align=1)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.uint64), generate


@intrinsic
def prefetch(typingctx, array, index):
    """Ask for the cache line in which row `index` of an array begins, without waiting for it."""

    def generate(context, builder, signature, args):
        table = make_array(signature.args[0])(context, builder, args[0])
        byte = ir.IntType(8).as_pointer()
        stride = builder.extract_value(table.strides, 0)
        pointer = builder.gep(builder.bitcast(table.data, byte), [builder.mul(args[1], stride)])
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        builder.call(function, [pointer, number(0), number(3), number(1)])  # to read, into all caches, data
        return context.get_dummy_value()

    return types.void(array, types.int64), generate
