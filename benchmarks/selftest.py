"""Checks that the load generator counts right: `python -m benchmarks.selftest`.

**Events.** A server sends the same answer to many streams. Each stream gets it in two pieces, cut at a
different byte; the last stream gets it byte by byte. Each stream must count the three events with a stamp,
and nothing else. The answer comes in three framings: chunks that cut lines, a single chunk, and no chunks.

**Faults.** A server ends each stream once or twice, and sends the rest of the events when the stream comes
back. In each case but the first, the server makes one fault, such as leaving out an event. The load generator
must count this fault on each stream, and no other.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

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


def loadgen() -> Path:
    """Builds the load generator; returns its path."""
    build = Path(os.environ.get("BUILD", ROOT / "benchmarks" / "build"))
    subprocess.run(["make", "-s", "-C", str(ROOT / "benchmarks"), f"BUILD={build}"], check=True)
    return build / "loadgen"


def count(answer: bytes) -> dict[str, float]:
    port = free_port()
    with socket.create_server(("127.0.0.1", port), backlog=4096) as listener:
        threading.Thread(target=serve, args=(listener, answer), daemon=True).start()
        command = [str(loadgen()), "--port", str(port), "--path", "/%d"]
        command += ["--streams", str(len(answer) + 1), "--concurrency", "5000", "--seconds", "0.5"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
    report: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return report


# -- streams that come back --------------------------------------------------------------------------------

#: How many streams connect, and the number of the last event.
STREAMS, LAST = 20, 5
#: An event that is cut off: its id must not be sent back, and its number must not count.
CUT = f'id: c{LAST}\ndata: {{"t":1,"n":{LAST}}}\n'
REFUSED = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
RESET = 'event: sse.reset\ndata: {"channels":["bench"],"reason":"gap"}\n\n'


def events(numbers: Sequence[int], more: str = "") -> str:
    """Returns an answer with these events, and with other text after them."""
    frames = "".join(f'id: c{n}\ndata: {{"t":{n + 1},"n":{n}}}\n\n' for n in numbers)
    return f"{HEAD}\r\nretry: 20\n{frames}{more}"


#: The answers to the connections of each stream, one after another, and what each stream must count.
FAULTS: dict[str, tuple[list[str], dict[str, int]]] = {
    "no fault": ([events([0, 1, 2], CUT), events([3, 4, 5])], {"ended": 1}),
    "an event is lost": ([events([0, 1, 3, 4, 5])], {"lost": 1}),
    "two events are lost in between": ([events([0, 1]), events([4, 5])], {"ended": 1, "lost": 2}),
    "an event is doubled": ([events([0, 1, 1, 2, 3, 4, 5])], {"doubled": 1}),
    "an event is doubled in between": ([events([0, 1]), events(range(1, 6))], {"ended": 1, "doubled": 1}),
    "two events change places": ([events([0, 2, 1, 3, 4, 5])], {"lost": 1, "doubled": 1}),
    "the last event is missing": ([events([0, 1, 2]), events([3, 4])], {"ended": 1, "behind": 1}),
    "events are gone": ([events(range(6), RESET)], {"resets": 1}),
    "a stream is refused": ([events([0, 1, 2]), REFUSED, events([3, 4, 5])], {"ended": 1, "refused": 1}),
}  # fmt: skip
#: What is counted: `behind` are the streams without the last event.
COUNTED = ("lost", "doubled", "resets", "ended", "refused", "behind")


class Answers(socketserver.ThreadingTCPServer):
    """Answers the connections of each stream with one answer after another. The last answer stays open."""

    daemon_threads = True
    request_queue_size = STREAMS

    def __init__(self, answers: Sequence[str]) -> None:
        super().__init__(("127.0.0.1", 0), Connection)
        self.answers = answers
        self.connections: Counter[str] = Counter()  # how often each stream has connected
        self.wrong_ids = 0  # how many streams came back with a wrong Last-Event-ID

    def last_id(self, connections: int) -> str:
        """Returns the id with which a stream must come back after so many connections."""
        sent = "".join(self.answers[:connections])
        ids: list[str] = re.findall(r"id: (\w+)\ndata: .*\n\n", sent)
        return ids[-1] if ids else ""


class Connection(socketserver.StreamRequestHandler):
    server: Answers

    def handle(self) -> None:
        head = b"".join(iter(self.rfile.readline, b"\r\n")).decode()
        stream = head.split()[1]
        number = self.server.connections[stream]
        self.server.connections[stream] += 1
        _, _, last_id = head.partition("Last-Event-ID: ")
        self.server.wrong_ids += last_id.strip() != self.server.last_id(number)
        self.wfile.write(self.server.answers[number].encode())
        if number == len(self.server.answers) - 1:
            self.rfile.read()  # until the load generator ends


def count_faults(answers: Sequence[str], expected: dict[str, int]) -> dict[str, int]:
    """Sends the answers to all streams, until the load generator counts what is expected; at most 10 s.

    Returns what it has counted.
    """
    found: dict[str, int] = {}
    with Answers(answers) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        command = [str(loadgen()), "--port", str(server.server_address[1]), "--path", "/%d"]
        command += ["--streams", str(STREAMS), "--hold", "--reconnect"]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        ) as process:
            assert process.stdin
            assert process.stdout
            process.stdout.readline()  # READY
            deadline = time.monotonic() + 10
            while found != expected and time.monotonic() < deadline:
                time.sleep(0.02)
                process.stdin.write(f"status {LAST}\n")
                status = json.loads(process.stdout.readline())
                found = {name: status[name] for name in COUNTED}
            process.stdin.write("quit\n")
        server.shutdown()
    return {**found, "wrong_ids": server.wrong_ids}


def check_faults() -> int:
    """Returns in how many of the cases the load generator counts wrong."""
    wrong = 0
    for name, (answers, each) in FAULTS.items():
        expected = {one: STREAMS * each.get(one, 0) for one in COUNTED}
        found = count_faults(answers, expected)
        right = found == {**expected, "wrong_ids": 0}
        wrong += not right
        print(f"{name}: {'counted' if right else f'expected {expected}, counted {found}'}")
    return wrong


def main() -> int:
    wrong = 0
    for name, answer in answers().items():
        report = count(answer)
        streams = len(answer) + 1
        expected = EVENTS * streams
        wrong += report["events"] != expected
        print(f"{name}: {report['events']} of {expected} events, {report['opened']} of {streams} streams")
    return 1 if wrong + check_faults() else 0


if __name__ == "__main__":
    sys.exit(main())
