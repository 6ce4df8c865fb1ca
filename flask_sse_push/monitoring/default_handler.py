"""Writes this package's log records if the app has configured no logging, as Flask does for `app.logger`."""

from __future__ import annotations

import copy
import logging
from typing import Any

from flask.logging import wsgi_errors_stream

FORMAT = "[%(asctime)s] %(levelname)s in %(name)s: %(message)s"


class DefaultHandler(logging.Handler):
    """Sends records to gunicorn's error log, or on other servers to stderr, with time, level and logger.

    Does nothing as soon as a logger on the record's way has a handler of the app, also if the app adds the
    handler later. So no record is written twice. Holds no lock while other handlers work.
    """

    def __init__(self) -> None:
        super().__init__()
        self._stderr: logging.Handler = logging.StreamHandler[Any](wsgi_errors_stream)
        self._stderr.setFormatter(logging.Formatter(FORMAT))

    def handle(self, record: logging.LogRecord) -> bool:
        if self._has_other(record.name):
            return False
        gunicorn = logging.getLogger("gunicorn.error")
        if not gunicorn.handlers:
            return bool(self._stderr.handle(record))
        if gunicorn.isEnabledFor(record.levelno):
            named = copy.copy(record)  # gunicorn's format shows no name of a logger
            named.msg, named.args = f"{record.name}: {record.getMessage()}", None
            gunicorn.handle(named)
        return True

    def _has_other(self, name: str) -> bool:
        """Whether a record of the logger `name` also reaches a handler other than this one."""
        logger: logging.Logger | None = logging.getLogger(name)
        while logger is not None:
            if any(handler is not self for handler in logger.handlers):
                return True
            logger = logger.parent if logger.propagate else None
        return False
