"""How many bytes of a connection the server has handed to the kernel."""

from __future__ import annotations

import socket
import struct
import sys
from typing import Any

from .base import unread_bytes

#: The field `tcpi_bytes_acked` of Linux's `struct tcp_info`, and the size of the struct up to its end.
_BYTES_ACKED, _SIZE = 120, 128


def sent_bytes(client: Any) -> int | None:
    """Returns how many bytes were written to a TCP socket since the connection began. Does not block.

    :param client: the socket; None if the WSGI server does not show it.
    :return: the bytes that the client has acknowledged, and those that it has not. None if nobody knows: the
        socket is not TCP or closed, or the system is not Linux.
    """
    if client is None or sys.platform != "linux":
        return None
    try:
        state = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _SIZE)
    except OSError:
        return None
    if len(state) < _SIZE:
        return None
    acknowledged: int = struct.unpack_from("=Q", state, _BYTES_ACKED)[0]
    return acknowledged + unread_bytes(client.fileno())
