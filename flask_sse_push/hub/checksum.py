"""The checksum (CRC-32) of a text that was sent in parts, computed from the checksums of the parts.

A CRC-32 is the remainder of a division of polynomials. The bits of the text are the coefficients of a
polynomial, which is divided by a fixed polynomial. Coefficients are added modulo 2, so addition is `^`.

When n bytes are appended to a text, the polynomial of the text is multiplied by x**(8 * n). The remainder
is multiplied by the same factor: `shift(crc, n)` does this multiplication. Hence the checksum of a text `a`
followed by a text `b` is:

    crc32(a + b) == shift(crc32(a), len(b)) ^ crc32(b)

`shift` takes a few dozen steps, whatever n is.
"""

from __future__ import annotations

from functools import lru_cache

#: The fixed polynomial of CRC-32, as a number of 32 bits. In this module the highest bit of a number is the
#: coefficient of x**0, and the lowest bit is the coefficient of x**31.
_POLYNOMIAL = 0xEDB88320


def shift(crc: int, count: int) -> int:
    """Returns `crc` multiplied by x**(8 * count): the effect of `count` bytes appended to the text."""
    place = 0
    while count and crc:
        if count & 0xFF:
            crc = _product(_power(place, count & 0xFF), crc)
        count >>= 8
        place += 1
    return crc


@lru_cache(maxsize=2048)
def _power(place: int, digit: int) -> int:
    """The factor for one byte of a count: x**(8 * digit * 256**place) modulo the polynomial.

    :param place: the index of the byte in the count; 0 is the lowest byte.
    :param digit: the value of that byte, 0 to 255.
    """
    factor, exponent = 0x80000000, 8 * place + 3  # the polynomial 1; 8 * 256**place is 2**(8 * place + 3)
    while digit:
        if digit & 1:
            factor = _product(_SQUARES[exponent % 32], factor)
        digit >>= 1
        exponent += 1
    return factor


def _product(a: int, b: int) -> int:
    """The product of the polynomials a and b modulo the fixed polynomial."""
    product = 0
    while a:
        if a & 0x80000000:
            product ^= b
        a = (a << 1) & 0xFFFFFFFF
        b = (b >> 1) ^ _POLYNOMIAL if b & 1 else b >> 1
    return product


def _squares() -> list[int]:
    """The polynomials x**(2**n) for n from 0 to 31. Each is the square of the one before.

    Larger n repeat the list, because x**(2**32) is x again.
    """
    squares = [0x40000000]  # the polynomial x
    while len(squares) < 32:
        squares.append(_product(squares[-1], squares[-1]))
    return squares


_SQUARES = _squares()
