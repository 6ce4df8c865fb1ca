"""Finds out what answers at an address: nothing, a server with TLS, or a server without TLS."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from typing import NamedTuple

#: At most how many seconds one connection attempt and one answer take, and at most how many addresses of a
#: name are tried.
TIMEOUT, MOST_ADDRESSES = 1.5, 6
#: The addresses of this machine itself, for IPv4 and for IPv6.
LOOPBACKS = ("127.0.0.1", "::1")


class Address(NamedTuple):
    """One address of a host. `problem` says why no connection to the address is possible, or is ""."""

    ip: str
    port: int
    problem: str

    @property
    def text(self) -> str:
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"


def survey(host: str, port: int) -> list[Address]:
    """Returns the addresses of a host, each with the outcome of one attempt to connect. Blocks.

    :raises socket.gaierror: if the name has no address.
    """
    with contextlib.suppress(UnicodeError):
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        ips = list(dict.fromkeys(str(info[4][0]) for info in found))[:MOST_ADDRESSES]
        return [Address(ip, port, problem_at(ip, port)) for ip in ips]
    raise socket.gaierror(socket.EAI_NONAME, "the name is not valid")


def problem_at(ip: str, port: int) -> str:
    """Returns why no connection to an address is possible; "" if one is possible. Blocks."""
    try:
        socket.create_connection((ip, port), TIMEOUT).close()
    except TimeoutError:
        return f"no answer within {TIMEOUT:g} seconds"
    except (OSError, OverflowError) as error:
        return getattr(error, "strerror", None) or str(error)
    return ""


def other_loopback(ip: str, port: int) -> str:
    """Returns the other one of `LOOPBACKS` if a server listens there; "" if not, or if `ip` is neither."""
    if ip not in LOOPBACKS:
        return ""
    other = next(each for each in LOOPBACKS if each != ip)
    return "" if problem_at(other, port) else other


def speaks_tls(address: Address, name: str) -> bool:
    """Whether the server at an address speaks TLS, with whatever certificate. Blocks."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with _connected(address) as raw, context.wrap_socket(raw, server_hostname=name):
            return True
    except ssl.SSLError as error:
        # A server that refuses this client in TLS speaks TLS.
        return "ALERT" in str(error).upper().replace(" ", "_")
    except OSError:
        return False


def demands_certificate(address: Address, name: str) -> bool:
    """Whether a server that speaks TLS ends the connection of a client without a certificate. Blocks."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with _connected(address) as raw, context.wrap_socket(raw, server_hostname=name) as secure:
            return secure.recv(1) == b""  # with TLS 1.3, the refusal comes after the handshake
    except TimeoutError:  # the server waits for a command
        return False
    except OSError:
        return True


def answer(address: Address, question: bytes) -> bytes:
    """Sends a question without TLS. Returns the first bytes of the answer; empty if none comes. Blocks."""
    with contextlib.suppress(OSError), _connected(address) as raw:
        raw.sendall(question)
        return raw.recv(300)
    return b""


@contextlib.contextmanager
def _connected(address: Address) -> Iterator[socket.socket]:
    with socket.create_connection((address.ip, address.port), TIMEOUT) as raw:
        yield raw
