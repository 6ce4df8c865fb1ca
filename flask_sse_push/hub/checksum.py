"""CRC-32 of a text that was sent in parts, computed from the checksums of the parts.

A CRC-32 is the remainder of a division. Read the bits of a text as the coefficients of a polynomial, divide
it by a fixed polynomial (coefficients modulo 2, so adding is `^`), and the remainder is the checksum. Hence
two rules. If n bytes follow a text, its polynomial is multiplied by x**(8 * n), and so is the remainder:
`shift(crc, n)`. The checksum of two texts in a row is the sum of both remainders:

    crc32(a + b) == shift(crc32(a), len(b)) ^ crc32(b)

`shift` takes a few dozen steps, however many bytes follow.
"""

from __future__ import annotations

from functools import lru_cache

#: The polynomial of CRC-32. Bits are reversed here: the highest bit of a number stands for x**0.
_POLYNOMIAL = 0xEDB88320


def shift(crc: int, count: int) -> int:
    """What the checksum `crc` becomes when `count` zero bytes follow: crc * x**(8 * count)."""
    place = 0
    while count and crc:
        if count & 0xFF:
            crc = _product(_power(place, count & 0xFF), crc)
        count >>= 8
        place += 1
    return crc


@lru_cache(maxsize=2048)
def _power(place: int, digit: int) -> int:
    """x**(8 * digit * 256**place): the factor for one byte of a count."""
    factor, exponent = 0x80000000, 8 * place + 3  # 1, and 8 is 2**3
    while digit:
        if digit & 1:
            factor = _product(_SQUARES[exponent % 32], factor)
        digit >>= 1
        exponent += 1
    return factor


def _product(a: int, b: int) -> int:
    """a * b modulo the polynomial."""
    product = 0
    while a:
        if a & 0x80000000:
            product ^= b
        a = (a << 1) & 0xFFFFFFFF
        b = (b >> 1) ^ _POLYNOMIAL if b & 1 else b >> 1
    return product


def _squares() -> list[int]:
    """x**(2**n) for n from 0 to 31. The next one would be the first again, since x**(2**32) is x."""
    squares = [0x40000000]
    while len(squares) < 32:
        squares.append(_product(squares[-1], squares[-1]))
    return squares


_SQUARES = _squares()
