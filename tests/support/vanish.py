"""Makes clients vanish: they send no FIN, no RST and no ACK, as behind a dead radio link."""

from __future__ import annotations

import ctypes
import socket
import struct

_SO_ATTACH_FILTER = 26
#: The classic BPF program "return 0": accept no byte of any packet.
_DROP_ALL = struct.pack("HBBI", 0x06, 0, 0, 0)


def vanish(connection: socket.socket) -> None:
    """Makes the kernel drop every packet for `connection` before TCP sees it. Needs no privileges."""
    program = ctypes.create_string_buffer(_DROP_ALL)
    filter = struct.pack("HxxxxxxP", 1, ctypes.addressof(program))
    connection.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filter)
