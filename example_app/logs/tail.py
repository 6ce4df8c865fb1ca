"""Follows a log file and publishes its lines. Knows no Flask: the ticker runs it."""

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
#: Seconds between two looks at the file.
INTERVAL = 0.25
#: Bytes of a file's end that are read at first.
BACKLOG = 100_000
#: Bytes of a line; longer ones come in pieces, so that each fits into an event.
LONGEST_LINE = 1000
#: Lines read in one look; the rest waits in the file.
MOST = 200

#: What logfile.FORMAT makes.
PATTERN = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) ([A-Z]+) (\S+): (.*)")


class Line(NamedTuple):
    """A line, and a name that no other line has."""

    id: str
    text: str


class Tail:
    """The lines of a file as it grows, by its name: another file of that name is begun at its start when the
    one before has come to its end. A file that was cut is begun anew, however long it has become meanwhile:
    what was read last is no longer where it was.
    """

    def __init__(self, path: Path, backlog: int = BACKLOG) -> None:
        self._path = path
        self._backlog = backlog
        self._file: BinaryIO | None = None
        self._last = b""  # the bytes before the position

    def lines(self, most: int = MOST) -> list[Line]:
        """Whole lines that were not returned before, at most so many. Does not wait for any."""
        found = self._read(most)
        if not found and self._is_another():  # the writers had a whole look's time to let go of the old one
            self.close()
            self._open(0)
            found = self._read(most)
        return found

    def close(self) -> None:
        """Lets go of the file; may be called twice."""
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
            self._file.readline()  # the rest of a line

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
            self._backlog = 0  # only at the beginning
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
    """Publishes the lines of the log each time it is called, and begins a new file when it is long."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tail = Tail(path)
        self._waiting: deque[Line] = deque()
        self._level = "INFO"

    def __call__(self, announcer: MessageAnnouncer) -> None:
        """Publishes what is new, each line once: a line's name makes it safe to publish it again.

        :raises BrokerUnavailable: then the lines wait for the next call, and the others in the file.
        """
        if not self._waiting:
            self._waiting.extend(self._tail.lines())
        while self._waiting:
            line = self._waiting[0]
            announcer.publish(self._parsed(line.text), "line", channel=CHANNEL, id=line.id)
            self._waiting.popleft()
        logfile.rotate(self._path)

    def close(self) -> None:
        """Lets go of the file; may be called twice."""
        self._tail.close()

    def _parsed(self, text: str) -> dict[str, Any]:
        """`at`, `level`, `source` and `text`; what is no line of its own has the level of the one before."""
        match = PATTERN.fullmatch(text)
        if match is None:
            return {"at": "", "level": self._level, "source": "", "text": text}
        at, self._level, source, rest = match.groups()
        return {"at": at, "level": self._level, "source": source, "text": rest}
