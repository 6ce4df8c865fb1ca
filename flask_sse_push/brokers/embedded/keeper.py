"""The process beside an embedded server: starts the server, watches its use, and ends an unused server.

`server` runs this file as a program, in a process that belongs to no terminal and to no app. So the file
needs nothing but the standard library. `server` also uses its functions.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

#: Names in the data folder: the lock, the record of the server, its log, its data, and damaged data.
LOCK, RECORD, LOG, DATA, DAMAGED = "lock", "server.json", "valkey.log", "appendonlydir", "damaged"
#: Seconds between two looks at the server.
POLL = 1.0
#: At most how many seconds a server takes to start, also one that reads much data.
START = 30.0
#: At most how much memory the data may take. A full server refuses to store events.
MEMORY = "256mb"
OPTIONS = {
    "port": "0",
    "dir": ".",
    "unixsocketperm": "700",
    # Each event is in a file before the publisher gets a reply, so the event survives a crash of the server.
    "appendonly": "yes",
    "appendfsync": "everysec",
    "appenddirname": DATA,
    "auto-aof-rewrite-min-size": "16mb",
    "save": "",
    "maxmemory": MEMORY,
    "maxmemory-policy": "noeviction",
    "loglevel": "warning",
}


def ask(address: str, *command: str, timeout: float = 2.0) -> str:
    """Sends one command to the server at a socket. Returns the reply without its length.

    :raises OSError: if the server does not answer in time, or closes the connection.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        connection.connect(address)
        connection.sendall(" ".join(command).encode() + b"\r\n")
        reply = bytearray()
        while b"\r\n" not in reply or (reply[:1] == b"$" and len(reply) < _length(reply)):
            received = connection.recv(65536)
            if not received:
                raise ConnectionResetError(f"the server at {address} closed the connection")
            reply += received
    return reply.decode(errors="replace")


def _length(reply: bytearray) -> int:
    head, _, _ = reply.partition(b"\r\n")
    return len(head) + 2 + int(head[1:]) + 2


def info(address: str) -> dict[str, str]:
    """Returns what the server says about itself: the fields of INFO.

    :raises OSError: if the server does not answer in time.
    """
    lines = ask(address, "INFO").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def connections_of_others(answer: dict[str, str]) -> int:
    """Returns how many connections are open, without the keeper's own and the one that sent INFO.

    :param answer: the result of `info`.
    """
    return int(answer["connected_clients"]) - 2


def is_alive(address: str) -> bool:
    """Whether a server at this socket answers and has read its data.

    :raises TimeoutError: if a server accepts the connection, but does not answer in time.
    """
    try:
        # A server that cannot write to its disk answers with an error, also to PING.
        return not ask(address, "PING").startswith("-LOADING")
    except TimeoutError:
        raise
    except OSError:
        return False


def record_of(folder: Path) -> dict[str, Any]:
    """Returns what the keeper has written about the server of a data folder; {} if there is no record.

    Also returns {} in a copy of a data folder, because the record there belongs to the original folder.
    """
    with contextlib.suppress(OSError, ValueError):
        record: dict[str, Any] = json.loads((folder / RECORD).read_text("utf-8"))
        if (record["folder"], record["inode"]) == (str(folder), folder.stat().st_ino):
            return record
    return {}


def lock(folder: Path) -> int | None:
    """Takes the lock of a data folder. Returns its descriptor; None if another process has the lock."""
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


class Keeper:
    """Starts the server of a data folder, and ends it when nobody uses it.

    :param program: the path of valkey-server.
    :param address: the path of the socket for a new server.
    :param idle: after how many seconds without use the server ends.
    """

    def __init__(self, folder: Path, program: str, address: str, idle: float) -> None:
        self.folder = folder
        self._program = program
        self._address = address
        self._idle = idle

    def start(self) -> str:
        """Starts the server, or takes over a server whose keeper was killed. Returns a warning, or "".

        :raises OSError: if the server does not start; the message is the last line of its log.
        """
        record = record_of(self.folder)
        if record and _accepts(record["socket"]):
            self._address = record["socket"]
            return ""
        if not record:
            _remove(self.folder / DATA)  # without a record, the data is of a copied folder
        elif record["socket"]:
            Path(record["socket"]).unlink(missing_ok=True)
        self._write_record("")
        return self._start_with_data()

    def _start_with_data(self) -> str:
        try:
            self._run()
        except OSError as error:
            data, damaged = self.folder / DATA, self.folder / DAMAGED
            if not data.exists():
                raise
            _remove(damaged)
            data.rename(damaged)
            try:
                self._run()
            except OSError:
                _remove(data)
                damaged.rename(data)
                raise error from None
            return f"the server could not read its data, which is now in {damaged}; it starts empty: {error}"
        return ""

    def _run(self) -> None:
        options = [text for name, value in OPTIONS.items() for text in (f"--{name}", value)]
        with (self.folder / LOG).open("wb") as log:
            process = subprocess.Popen(
                [self._program, *options, "--unixsocket", self._address],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START
        while not self._is_ready():
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                process.wait()
                raise OSError(self._last_line())
            time.sleep(0.01)
        self._write_record(self._address)

    def _is_ready(self) -> bool:
        with contextlib.suppress(TimeoutError):
            return is_alive(self._address)
        return False

    def _write_record(self, address: str) -> None:
        """Writes the record: which folder the data belongs to, and the socket of its server.

        :param address: "" while the server starts.
        """
        record = {"folder": str(self.folder), "inode": self.folder.stat().st_ino, "socket": address}
        draft = self.folder / f"{RECORD}.new"
        draft.write_text(json.dumps({**record, "idle": self._idle}))
        draft.rename(self.folder / RECORD)

    def _last_line(self) -> str:
        lines = (self.folder / LOG).read_text("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else "the server did not answer in time"

    def watch(self, descriptor: int) -> None:
        """Looks at the server again and again. Ends the server, and returns, if nobody uses it any more.

        Also ends the server if its data folder or its socket was deleted.

        :param descriptor: the lock of the data folder.
        """
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line, contextlib.suppress(OSError):
            line.connect(self._address)
            self._watch(descriptor, line)

    def _watch(self, descriptor: int, line: socket.socket) -> None:
        used, connections = time.monotonic(), -1
        while not _has_ended(line, min(POLL, self._idle / 4)):
            if not self._has(descriptor):
                line.sendall(b"SHUTDOWN NOSAVE\r\n")
                continue
            try:
                answer = info(self._address)
                # Each call of `info` makes one connection, which is not a use of the server.
                new = int(answer["total_connections_received"]) - connections - 1
                is_used = new > 0 or connections_of_others(answer) > 0
                connections += new + 1
            except (TimeoutError, KeyError):  # a stopped server, or one with too many clients
                is_used = True
            except OSError:  # nobody can reach the server: somebody has deleted its socket
                line.sendall(b"SHUTDOWN\r\n")
                continue
            if is_used:
                used = time.monotonic()
                os.utime(descriptor)
            elif time.monotonic() - used >= self._idle:
                line.sendall(b"SHUTDOWN\r\n")

    def _has(self, descriptor: int) -> bool:
        with contextlib.suppress(OSError):
            return (self.folder / LOCK).stat().st_ino == os.fstat(descriptor).st_ino
        return False


def _accepts(address: str) -> bool:
    """Whether a server accepts connections at this socket. The server need not answer."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(2.0)
        connection.connect(address)
        return True
    return False


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _has_ended(line: socket.socket, seconds: float) -> bool:
    """Waits at most `seconds`. Returns whether the server has closed its connection to the keeper."""
    # A server that cannot end sends the reason. The keeper ignores it and tries again.
    return bool(select.select([line], [], [], seconds)[0]) and not line.recv(65536)


def main(folder: str, program: str, address: str, idle: str) -> None:
    """Starts the server, and watches it in the background. Writes a warning or an error to stderr."""
    with contextlib.suppress(PermissionError):  # this process has a session of its own already
        os.setsid()
    os.closerange(3, 65536)  # descriptors of the process that runs this program, such as gunicorn's sockets
    for _ in range(20):  # `server` takes the lock for a moment to see whether it is free
        descriptor = lock(Path(folder))
        if descriptor is not None:
            break
        time.sleep(0.01)
    else:  # another process starts the server
        return
    keeper = Keeper(Path(folder), program, address, float(idle))
    try:
        warning = keeper.start()
    except OSError as error:
        sys.stderr.write(f"error {error}"[:1000])
        return
    sys.stderr.write(warning and f"warning {warning}"[:1000])
    sys.stderr.flush()
    if os.fork():
        os._exit(0)
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(nothing, number)
    os.chdir("/")
    keeper.watch(descriptor)


if __name__ == "__main__":
    main(*sys.argv[1:])
