"""The words of the answers in the chat app, for the app and for the tests that read them."""

from __future__ import annotations

#: The parts of an emoji, characters that JSON escapes, markup, unusual line ends, a letter of 4 bytes.
ODD = ("👩", "\u200d", "👧 ", 'é"\\ ', "<b>&amp; ", "\u2028\n", "\U0001d4b3 ")


def words(count: int) -> list[str]:
    """Returns the words of an answer with `count` words. Together, they are the answer."""
    return [ODD[n // 10 % len(ODD)] if n % 10 == 9 else f"{n} " for n in range(count)]
