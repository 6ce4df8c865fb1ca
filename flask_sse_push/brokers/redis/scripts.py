"""Reads the Lua scripts of this package."""

from __future__ import annotations

from importlib import resources


def script(*names: str) -> str:
    """Returns the text of a script: `foreign.lua`, followed by the files with these names."""
    folder = resources.files(__package__) / "lua"
    return "".join((folder / f"{name}.lua").read_text("utf-8") for name in ("foreign", *names))
