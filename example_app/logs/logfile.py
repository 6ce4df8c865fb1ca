"""The log file of the demo: all workers append to it, and one process rotates it."""

from __future__ import annotations

import logging
import logging.handlers
import os
from pathlib import Path

#: Environment variable that names the file. Without it the demo writes no file.
VARIABLE = "EXAMPLE_LOG"
FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
#: Loggers that write to the file. The access log does not: each request of the page itself would add a line.
LOGGERS = ("flask_sse_push", "example_app", "gunicorn.error")
#: Size in bytes over which `rotate` starts a new file. It keeps one old file.
LONGEST = 1_000_000


def path() -> Path | None:
    """Returns the path of the file, which may not exist yet; None if the demo writes no file."""
    name = os.environ.get(VARIABLE)
    return Path(name) if name else None


def write(file: Path) -> None:
    """Lets the loggers write to `file`: the app from level DEBUG on, the others from INFO on.

    A second call changes nothing.
    """
    # This handler opens the file anew after a rotation.
    handler = logging.handlers.WatchedFileHandler(file, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter(FORMAT))
    for name in LOGGERS:
        logger = logging.getLogger(name)
        if any(getattr(other, "baseFilename", None) == handler.baseFilename for other in logger.handlers):
            continue
        if not logger.handlers:  # logging wrote its warnings to stderr; an added handler would end that
            logger.addHandler(_to_stderr())
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG if name == "example_app" else logging.INFO)


def rotate(file: Path, longest: int = LONGEST) -> None:
    """Renames a file that is longer than `longest` bytes. The writers start a new file with their next
    line."""
    try:
        if file.stat().st_size > longest:
            file.replace(f"{file}.1")
    except FileNotFoundError:
        pass


def _to_stderr() -> logging.Handler:
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    return handler
