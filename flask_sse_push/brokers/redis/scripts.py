"""Reads the Lua scripts of this package."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources


def script(*names: str, first: Sequence[str] = ()) -> str:
    """Returns the text of a script: the files `first`, `foreign.lua`, and the files with the other names."""
    folder = resources.files(__package__) / "lua"
    return "".join((folder / f"{name}.lua").read_text("utf-8") for name in (*first, "foreign", *names))
