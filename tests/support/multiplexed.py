"""Opens many event streams over one HTTP/2 connection, as a browser does."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import h2.config
import h2.connection
import h2.events

from flask_sse_push.testing.events import Event, Parser


class Multiplexed:
    """Sends `count` GETs of one URL at once. `events` has the events of each stream, `ended` the number of
    streams that the server has ended.

    `httpx` cannot do this: while one of its streams waits for bytes, the bytes of the others stay unread.
    """

    def __init__(self, url: str, count: int, trust: ssl.SSLContext, *, timeout: float = 60.0) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self._timeout = timeout
        trust.set_alpn_protocols(["h2"])
        raw = socket.create_connection((parts.hostname, parts.port), timeout)
        self._socket = trust.wrap_socket(raw, server_hostname=parts.hostname)
        assert self._socket.selected_alpn_protocol() == "h2"
        self._connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
        self.events: dict[int, list[Event]] = {}
        self.ended = 0
        self._parsers: dict[int, Parser] = {}
        self._has_settings = False
        self._connection.initiate_connection()
        self._read_until(lambda: self._has_settings)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        head = [(":method", "GET"), (":authority", parts.netloc), (":scheme", "https"), (":path", target)]
        for _ in range(count):
            stream = self._connection.get_next_available_stream_id()
            self.events[stream], self._parsers[stream] = [], Parser()
            self._connection.send_headers(stream, head, end_stream=True)

    def until_each_has(self, count: int) -> None:
        """Reads until each stream has `count` events. Raises TimeoutError when nothing more comes."""
        self._read_until(lambda: all(len(events) >= count for events in self.events.values()))

    def until_all_have_ended(self) -> None:
        """Reads until the server has ended all streams. Raises EOFError when a stream is cut."""
        self._read_until(lambda: self.ended == len(self.events))

    def _read_until(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + self._timeout
        while not done():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not all streams got what they wait for in {self._timeout} seconds")
            self._socket.sendall(self._connection.data_to_send())
            data = self._socket.recv(65536)
            if not data:
                raise EOFError("the server closed the connection")
            for event in self._connection.receive_data(data):
                self._take(event)

    def _take(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RemoteSettingsChanged):
            self._has_settings = True
        elif isinstance(event, h2.events.ResponseReceived):
            assert dict(event.headers)[b":status"] == b"200", event.headers
        elif isinstance(event, h2.events.DataReceived):
            self.events[event.stream_id] += self._parsers[event.stream_id].feed(event.data)
            self._connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            self.ended += 1
        elif isinstance(event, h2.events.StreamReset):
            raise EOFError(f"stream {event.stream_id} was cut")

    def close(self) -> None:
        """Closes the connection, and with it all streams."""
        self._socket.close()

    def __enter__(self) -> Multiplexed:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
