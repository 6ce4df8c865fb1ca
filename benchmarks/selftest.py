"""Checks that the load generator counts right: `python -m benchmarks.selftest`.

A server sends the same answer to many streams. Each stream gets it in two pieces, cut at a different byte;
the last stream gets it byte by byte. Each stream must count the three events with a stamp, and nothing else.
The answer comes in three framings: chunks that cut lines, a single chunk, and no chunks.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time

from .process import ROOT, free_port

EVENTS = 3
HEAD = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
BODY = (
    ': a comment\n\nevent: open\nid: 0\ndata: {}\n\ndata: {"t":1}\n\nevent: ping\ndata: {}\n\n'
    'id: 1\r\ndata: {"x": "\\"t\\" \u00e4", "t": 22}\r\n\r\n'
    'id: 2\ndata:{"t":333,\ndata:"x":0}\n\ndata: {"t":4}\n'
).encode()


def chunk(data: bytes) -> bytes:
    return b"%X\r\n%s\r\n" % (len(data), data)


def answers() -> dict[str, bytes]:
    chunked = (HEAD + "transfer-encoding: Chunked\r\n\r\n").encode()
    odd = b"".join(chunk(BODY[at : at + 17]) for at in range(0, len(BODY), 17))
    return {
        "odd chunks": chunked + odd,
        "one chunk": chunked + b"%x;name=value\r\n%s\r\n" % (len(BODY), BODY),
        "no chunks": (HEAD + "\r\n").encode() + BODY,
    }


def serve(listener: socket.socket, answer: bytes) -> None:
    """Sends the answer to stream n in two pieces, cut at byte n; the last stream gets single bytes."""
    opened: list[socket.socket] = []
    pending: list[tuple[socket.socket, bytes]] = []
    while len(opened) <= len(answer):
        connection, _ = listener.accept()
        opened.append(connection)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        cut = int(connection.recv(4096).split()[1].strip(b"/"))
        if cut == len(answer):
            for byte in answer:
                connection.send(bytes([byte]))
                time.sleep(0.0005)
        else:
            connection.send(answer[:cut])
            pending.append((connection, answer[cut:]))
    time.sleep(0.2)  # by now the load generator has read each first piece separately
    for connection, rest in pending:
        connection.send(rest)
    time.sleep(1.5)
    for connection in opened:
        with contextlib.suppress(OSError):
            connection.close()


def count(answer: bytes) -> dict[str, float]:
    port = free_port()
    with socket.create_server(("127.0.0.1", port), backlog=4096) as listener:
        threading.Thread(target=serve, args=(listener, answer), daemon=True).start()
        command = [str(ROOT / "benchmarks" / "build" / "loadgen"), "--port", str(port), "--path", "/%d"]
        command += ["--streams", str(len(answer) + 1), "--concurrency", "5000", "--seconds", "0.5"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
    report: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return report


def main() -> int:
    subprocess.run(["make", "-s", "-C", str(ROOT / "benchmarks")], check=True)
    wrong = 0
    for name, answer in answers().items():
        report = count(answer)
        streams = len(answer) + 1
        expected = EVENTS * streams
        wrong += report["events"] != expected
        print(f"{name}: {report['events']} of {expected} events, {report['opened']} of {streams} streams")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
