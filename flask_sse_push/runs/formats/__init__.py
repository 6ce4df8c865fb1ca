"""Formats: how a run is written for front ends that do not know the events of this package.

Each format has one file with a `Writer`: a state machine that turns the items of a run into the JSON objects
of the format. It knows neither streams nor HTTP. `encoder` lets a stream of the hub use a writer. To add a
format, write a file and add a row to `FORMATS`. A format is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module

from .writer import Writer

#: For each name of a format, the module that has its `Writer`.
FORMATS = {"ai-sdk": "ai_sdk", "ag-ui": "ag_ui", "openai": "openai"}


def writer_class(format: str) -> type[Writer]:
    """Returns the class that writes a format.

    :raises ValueError: if there is no such format; the message names all formats.
    """
    if format not in FORMATS:
        names = ", ".join(map(repr, FORMATS))
        raise ValueError(f"the format is {format!r}, must be one of {names}")
    found: type[Writer] = import_module(f".{FORMATS[format]}", __name__).RunWriter
    return found
