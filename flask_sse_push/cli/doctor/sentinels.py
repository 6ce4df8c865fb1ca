"""Says why the sentinels of a broker URL name no primary."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from ...config import Settings
from . import network
from .finding import Finding, broken
from .hosts import fault_at, hosts_of

WHY = "nothing can be published, and no stream opens"


def examine_sentinels(settings: Settings, why: str) -> Finding:
    """Returns the finding if the sentinels name no primary that can be used.

    :param why: the error of the app's own attempt.
    """
    silent = []
    for host, port in hosts_of(settings):
        found = fault_at(host, port, "SSE_PUSH_BROKER_URL")
        if isinstance(found, str):
            silent.append(found.partition("\n")[0])
            continue
        reply = network.answer(found, b"SENTINEL MASTERS\r\n")
        if reply.startswith(b"-ERR unknown"):
            return broken(
                "broker",
                f"the server at {found.text} is no sentinel",
                WHY,
                "name the sentinels in the URL, which listen at port 26379: "
                "redis+sentinel://HOST:26379/SERVICE",
            )
        if reply.startswith(b"-NOAUTH") and "sentinel_password=" not in settings.broker_url:
            return broken(
                "broker",
                f"the sentinel at {found.text} requires a password",
                WHY,
                "add ?sentinel_password=… to SSE_PUSH_BROKER_URL; the password before the @ is for Redis",
            )
        names = _service_names(reply)
        service = unquote(urlsplit(settings.broker_url).path).strip("/").partition("/")[0]
        if names and service not in names:
            return broken(
                "broker",
                f"the sentinels watch no service {service!r}, but {', '.join(map(repr, names))}",
                WHY,
                f"write the name of the service into the URL: redis+sentinel://HOST:26379/{names[0]}",
            )
        return broken(
            "broker",
            f"the sentinel at {found.text} knows no live primary of {service!r} ({why})",
            WHY,
            f"start the primary; redis-cli -p 26379 SENTINEL CKQUORUM {service} shows whether the sentinels "
            "can choose another primary",
        )
    return broken(
        "broker",
        "no sentinel can be reached: " + "; ".join(silent),
        WHY,
        "start the sentinels, or correct their hosts and ports in SSE_PUSH_BROKER_URL",
    )


def _service_names(reply: bytes) -> list[str]:
    """Returns the names of the services in the reply to SENTINEL MASTERS."""
    lines = reply.decode(errors="replace").split("\r\n")
    return [lines[at + 2] for at in range(len(lines) - 2) if lines[at] == "name"]
