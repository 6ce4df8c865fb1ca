"""The log file of the demo: all workers append to it, one process takes it away when it is big."""

from __future__ import annotations

import logging
import logging.handlers
import os
from pathlib import Path

#: Names the file; without it none is written.
VARIABLE = "EXAMPLE_LOG"
FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
#: Loggers that write to it; access logs do not, which would tell of each look at the page.
LOGGERS = ("flask_sse_push", "example_app", "gunicorn.error")
#: Bytes at which a new file begins; one old file is kept.
LONGEST = 1_000_000


def path() -> Path | None:
    """Where the file is, or is to be."""
    name = os.environ.get(VARIABLE)
    return Path(name) if name else None


def write(file: Path) -> None:
    """Has the loggers write to `file`, from DEBUG on in the app and from INFO on elsewhere. Twice is once."""
    # It looks before each line whether the file is still the one by this name.
    handler = logging.handlers.WatchedFileHandler(file, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter(FORMAT))
    for name in LOGGERS:
        logger = logging.getLogger(name)
        if any(getattr(other, "baseFilename", None) == handler.baseFilename for other in logger.handlers):
            continue
        if not logger.handlers:  # then warnings went to stderr by themselves, and are to go on doing so
            logger.addHandler(_to_stderr())
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG if name == "example_app" else logging.INFO)


def rotate(file: Path, longest: int = LONGEST) -> None:
    """Puts a file aside that is longer than `longest` bytes; writers begin a new one with their next line."""
    try:
        if file.stat().st_size > longest:
            file.replace(f"{file}.1")
    except FileNotFoundError:
        pass


def _to_stderr() -> logging.Handler:
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    return handler
