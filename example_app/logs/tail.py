"""Follows a log file and publishes its lines. The ticker runs this module; it does not need Flask."""

from __future__ import annotations

import os
import re
import zlib
from collections import deque
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from flask_sse_push import MessageAnnouncer

from . import logfile

CHANNEL = "log"
#: Seconds between two reads of the file.
INTERVAL = 0.25
#: Number of bytes before the file's end at which the first read begins.
BACKLOG = 100_000
#: Maximum number of bytes in a line. A longer line is split, so that each piece fits into an event.
LONGEST_LINE = 1000
#: Maximum number of lines per read. The next read returns the rest.
MOST = 200

#: Matches a line in the format logfile.FORMAT.
PATTERN = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) ([A-Z]+) (\S+): (.*)")


class Line(NamedTuple):
    """A line and its unique id."""

    id: str
    text: str


class Tail:
    """Reads the lines of a growing file.

    After a rotation, it reads the old file to its end and then the new file of the same name from the start.
    It also starts again when somebody truncated the file, even if the file has grown since: the last line
    that it read is then no longer at its place.
    """

    def __init__(self, path: Path, backlog: int = BACKLOG) -> None:
        self._path = path
        self._backlog = backlog
        self._file: BinaryIO | None = None
        self._last = b""  # the bytes before the position

    def lines(self, most: int = MOST) -> list[Line]:
        """Returns complete lines that it has not returned before, at most `most` lines. Does not wait."""
        found = self._read(most)
        if not found and self._is_another():  # an empty read: the writers no longer use the old file
            self.close()
            self._open(0)
            found = self._read(most)
        return found

    def close(self) -> None:
        """Closes the file. A second call does nothing."""
        if self._file is not None:
            self._file.close()
            self._file = None
            self._last = b""

    def _open(self, backlog: int) -> None:
        try:
            self._file = self._path.open("rb")
        except FileNotFoundError:
            return
        if backlog and os.fstat(self._file.fileno()).st_size > backlog:
            self._file.seek(-backlog, os.SEEK_END)
            self._file.readline()  # skip the incomplete line

    def _is_another(self) -> bool:
        if self._file is None:
            return True
        try:
            return not os.path.samestat(os.fstat(self._file.fileno()), self._path.stat())
        except FileNotFoundError:
            return False

    def _was_cut(self, file: BinaryIO) -> bool:
        last = self._last
        return os.pread(file.fileno(), len(last), file.tell() - len(last)) != last

    def _read(self, most: int) -> list[Line]:
        if self._file is None:
            self._open(self._backlog)
            self._backlog = 0  # only the first file is skipped in part
        if self._file is None:
            return []
        if self._was_cut(self._file):
            self._file.seek(0)
            self._last = b""
        inode = os.fstat(self._file.fileno()).st_ino
        found: list[Line] = []
        while len(found) < most:
            at = self._file.tell()
            raw = self._file.readline(LONGEST_LINE)
            if not raw.endswith(b"\n") and len(raw) < LONGEST_LINE:  # it is still being written
                self._file.seek(at)
                break
            self._last = raw
            name = f"{inode}:{at}:{zlib.crc32(raw):08x}"
            found.append(Line(name, raw.decode(errors="replace").rstrip("\r\n")))
        return found


class Follower:
    """Publishes the new lines of the log each time it is called, and rotates the file when it is too long."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tail = Tail(path)
        self._waiting: deque[Line] = deque()
        self._level = "INFO"

    def __call__(self, announcer: MessageAnnouncer) -> None:
        """Publishes new lines. A line's id makes a second publish of the same line harmless.

        :raises BrokerUnavailable: The next call publishes the remaining lines.
        """
        if not self._waiting:
            self._waiting.extend(self._tail.lines())
        while self._waiting:
            line = self._waiting[0]
            announcer.publish(self._parsed(line.text), "line", channel=CHANNEL, id=line.id)
            self._waiting.popleft()
        logfile.rotate(self._path)

    def close(self) -> None:
        """Closes the file. A second call does nothing."""
        self._tail.close()

    def _parsed(self, text: str) -> dict[str, Any]:
        """Returns `at`, `level`, `source` and `text`. A line in another format gets the previous line's
        level."""
        match = PATTERN.fullmatch(text)
        if match is None:
            return {"at": "", "level": self._level, "source": "", "text": text}
        at, self._level, source, rest = match.groups()
        return {"at": at, "level": self._level, "source": source, "text": rest}
