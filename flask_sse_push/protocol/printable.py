"""Makes foreign text safe to print. A terminal obeys control characters, also those in a log file."""

from __future__ import annotations

import unicodedata

# Two characters that Python calls not printable, but that words of some scripts and emoji consist of.
_JOINERS = "\u200c\u200d"


def printable(text: str) -> str:
    """Returns `text` with an escape, such as `\\x1b`, for each character that a terminal could obey.

    Escapes control characters, line ends, characters that change the direction of writing, lone surrogates,
    and characters that nobody sees. Keeps all other Unicode, also wide spaces.
    """
    if text.isprintable():
        return text
    return "".join(each if _is_visible(each) else _escape(each) for each in text)


def _is_visible(character: str) -> bool:
    return character.isprintable() or character in _JOINERS or unicodedata.category(character) == "Zs"


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()
