"""The hosts that a URL names, and why none of them can be reached."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

from ...config import Settings
from . import network
from .network import Address


def hosts_of(settings: Settings) -> list[tuple[str, int]]:
    """Returns the hosts and ports of the broker URL."""
    parts = urlsplit(settings.broker_url)
    port = 26379 if "sentinel" in parts.scheme else 6379
    hosts = [urlsplit(f"//{host}") for host in parts.netloc.rpartition("@")[2].split(",")]
    return [(host.hostname or "localhost", host.port or port) for host in hosts]


def fault_at(host: str, port: int, whose: str) -> Address | str:
    """Returns an address of a host that accepts connections. If there is none, returns two lines: what is
    wrong, and what to do.

    :param whose: the setting or option that names the host, such as SSE_PUSH_BROKER_URL.
    """
    try:
        addresses = network.survey(host, port)
    except socket.gaierror as error:
        return (
            f"the name {host} has no address: {error.strerror}\ncorrect the host in {whose}, or add the name "
            "to DNS or /etc/hosts of this machine; in containers, use the name of the service"
        )
    working = [each for each in addresses if not each.problem]
    if working:
        return working[0]
    tried = ", ".join(f"{each.text} ({each.problem})" for each in addresses)
    others = [other for each in addresses if (other := network.other_loopback(each.ip, port))]
    if others:
        other = f"[{others[0]}]" if ":" in others[0] else others[0]
        return (
            f"nothing accepts connections at {tried}, but a server does at {other}:{port}\nwrite {other} as "
            f"the host in {whose}, or let the server listen on both IPv4 and IPv6"
        )
    if any("no answer" in each.problem for each in addresses):
        return (
            f"nothing answers at {tried}\ncheck the host and port in {whose}, firewalls and security groups"
        )
    return (
        f"nothing accepts connections at {tried}\nstart the server, or correct host and port in {whose}; "
        "a server on another machine must listen on its outer address (`bind`)"
    )
