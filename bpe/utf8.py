"""The UTF-8 of a part of a str, compiled: threads make it side by side, where `str.encode` makes them wait in turn.

A str holds its characters as numbers of 1, 2 or 4 bytes each, whatever its largest one needs (PEP 393).
"""

from compiled import inlined, kernel
from numba import carray, uint8, uint16, uint32, uint64

AT_A_TIME = uint64(16)  # characters that are looked at together, whether all are ASCII
ONE = uint64(1)


@inlined
def write(points, i, end, out):
    """Write points[i:end] to `out` in UTF-8; bytes written. Unsigned places: they need no test whether they are < 0."""
    at = uint64(0)
    while i < end:
        stop = min(i + AT_A_TIME, end)
        if stop - i == AT_A_TIME:
            together = uint32(0)
            for k in range(AT_A_TIME):
                together |= points[i + k]
            if together < 0x80:
                for k in range(AT_A_TIME):
                    out[at + k] = points[i + k]
                at += AT_A_TIME
                i = stop
                continue
        while i < stop:
            point = uint32(points[i])
            i += ONE
            if point < 0x80:
                out[at] = point
                at += ONE
                continue
            if point < 0x800:
                out[at] = 0xC0 | point >> 6
            else:
                if point < 0x10000:
                    out[at] = 0xE0 | point >> 12
                else:
                    out[at] = 0xF0 | point >> 18
                    at += ONE
                    out[at] = 0x80 | point >> 12 & 0x3F
                at += ONE
                out[at] = 0x80 | point >> 6 & 0x3F
            out[at + ONE] = 0x80 | point & 0x3F
            at += ONE + ONE
    return at


@kernel("int64(unicode_type, uint64, uint64, uint8[::1])", counted=True)
def write_utf8(text, start, end, out):
    """Write text[start:end] to `out` as UTF-8, a lone surrogate as the three bytes of its code point; bytes written."""
    if text._kind == 1:
        return write(carray(text._data, text._length, uint8), start, end, out)
    if text._kind == 2:
        return write(carray(text._data, text._length, uint16), start, end, out)
    return write(carray(text._data, text._length, uint32), start, end, out)
