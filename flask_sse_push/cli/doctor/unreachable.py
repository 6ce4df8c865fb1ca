"""Says why the broker cannot be used: from Redis' error message, or from what answers at its address."""

from __future__ import annotations

import os
import re
import socket
import stat
from collections.abc import Iterator, Sequence
from urllib.parse import unquote, urlsplit

from ...brokers.redis.link import PLAIN, SHARDED
from ...brokers.redis.refusals import ADVICE, code_of
from ...brokers.redis.rights import Missing, all_rules
from ...config import Settings, without_secret
from . import network
from .finding import Finding, broken
from .hosts import fault_at, hosts_of
from .network import Address
from .redis_errors import KNOWN
from .sentinels import WHY, examine_sentinels

#: The oldest versions with everything that the package needs: on one server, and on a cluster.
OLDEST, OLDEST_CLUSTER = "Redis 5.0", "Redis 7.0 or Valkey 7.2"


def explain(error: BaseException, settings: Settings) -> Finding:
    """Returns the finding about a broker that does not answer as it should. Blocks for some seconds."""
    text = _whole_text(error)
    code = code_of(text)
    if code == "NOPERM":
        return rights(_all_missing(settings))
    if code:
        return _refused_write(text)
    for known in KNOWN:
        if re.search(known.pattern, text):
            return broken("broker", f"{known.what} ({without_advice(text)})", WHY, known.advice)
    if "sentinel" in urlsplit(settings.broker_url).scheme:
        return examine_sentinels(settings, without_advice(text))
    finding = next(_at_addresses(settings), None)
    if finding is not None:
        return finding
    if command := re.search(r"unknown command [`']?([A-Za-z]+)", text):
        return unknown_command(settings, [command[1]])
    return broken(
        "broker",
        f"{without_secret(settings.broker_url)} does not answer as it should: {without_advice(text)}",
        WHY,
        "check that Redis runs and is not overloaded: redis-cli -u URL PING, redis-cli SLOWLOG GET",
    )


def rights(missing: Missing) -> Finding:
    """Returns the finding about a Redis user that lacks rights."""
    return broken(
        "rights",
        f"the Redis user {missing.user} lacks rights: {' '.join(missing.rules)}",
        "publishing, live events, missed events or presence fail without these rights",
        f"as an administrator of Redis run: {missing.command}",
    )


def _all_missing(settings: Settings) -> Missing:
    """Returns all rights that the app needs, for a user whose rights could not be tried one by one."""
    parts = urlsplit(settings.broker_url)
    pubsub = SHARDED if "cluster" in parts.scheme else PLAIN
    return Missing(unquote(parts.username or "default"), all_rules(settings.prefix, pubsub))


def _refused_write(text: str) -> Finding:
    """Returns the finding about a Redis that takes no writes.

    :param text: the error message of Redis.
    """
    code = code_of(text)
    if code in ("READONLY", "MASTERDOWN"):
        return broken(
            "broker",
            f"this Redis is a read-only replica ({without_advice(text)})",
            "it accepts no writes: every publish fails",
            "set SSE_PUSH_BROKER_URL to the primary, or use redis+sentinel://, which finds the primary",
        )
    why = "every publish fails; streams stay open and get nothing new"
    return broken("broker", f"Redis takes no writes: {without_advice(text)}", why, ADVICE[code])


def _whole_text(error: BaseException | None) -> str:
    """Returns the texts of an error and of its causes, the innermost last."""
    texts: list[str] = []
    while error is not None and len(texts) < 8:
        texts.append(f"{type(error).__name__}: {error}")
        error = error.__cause__ or error.__context__
    return "\n".join(texts)


def without_advice(text: str) -> str:
    """Returns the first line of a text, without our own advice."""
    return text.partition("\n")[0].removeprefix("BrokerUnavailable: ").partition(" (")[0][:200]


def unknown_command(settings: Settings, commands: Sequence[str]) -> Finding:
    """Returns the finding about a server that does not know commands. Blocks for some seconds."""
    scheme = urlsplit(settings.broker_url).scheme
    first = next(iter(hosts_of(settings)), None)
    if first is not None and b"_mode:sentinel" in _information(*first):
        return broken(
            "broker",
            "a sentinel answers at SSE_PUSH_BROKER_URL, not a data server",
            WHY,
            "set the URL to redis+sentinel://HOST:26379/SERVICE, with the name that the sentinels watch",
        )
    oldest = OLDEST_CLUSTER if "cluster" in scheme else OLDEST
    return broken(
        "broker",
        f"Redis does not know the command {', '.join(commands).upper()}",
        WHY,
        f"run {oldest} or newer (Redis 7 or Valkey 7.2 are tested), and do not rename this command with "
        "rename-command",
    )


def _information(host: str, port: int) -> bytes:
    for ip in (each.ip for each in network.survey(host, port) if not each.problem):
        with socket.create_connection((ip, port), network.TIMEOUT) as raw:
            raw.sendall(b"INFO server\r\n")
            return raw.recv(2000)
    return b""


# -- what answers at the address --------------------------------------------------------------------------


def _at_addresses(settings: Settings) -> Iterator[Finding]:
    """Yields what is wrong at each host of the broker URL, as far as a client without a password sees it."""
    scheme = urlsplit(settings.broker_url).scheme
    if scheme == "unix":
        yield from _unix(settings)
    if scheme in ("unix", "embedded"):
        return
    tls = scheme.startswith(("rediss", "valkeys"))
    for host, port in hosts_of(settings):
        found = fault_at(host, port, "SSE_PUSH_BROKER_URL")
        if isinstance(found, str):
            what, advice = found.split("\n")
            yield broken(
                "broker", f"{without_secret(settings.broker_url)} does not answer: {what}", WHY, advice
            )
        else:
            yield from _protocol(found, host, tls=tls)


def _protocol(address: Address, host: str, *, tls: bool) -> Iterator[Finding]:
    """Yields the finding if the server speaks TLS and the URL does not say so, or the other way round."""
    reply = network.answer(address, b"PING\r\n")
    is_plain = reply.startswith((b"+PONG", b"-NOAUTH", b"-NOPERM", b"-DENIED", b"-ERR"))
    if tls and is_plain:
        yield broken(
            "broker",
            f"SSE_PUSH_BROKER_URL asks for TLS, but Redis at {address.text} speaks without TLS",
            WHY,
            "begin the URL with redis:// instead of rediss://, or set tls-port on the server",
        )
    elif not is_plain and network.speaks_tls(address, host):
        if not tls:
            yield broken(
                "broker",
                f"Redis at {address.text} speaks TLS, and SSE_PUSH_BROKER_URL does not ask for it",
                WHY,
                "begin the URL with rediss:// instead of redis://; for a certificate of your own add "
                "?ssl_ca_certs=/path/to/ca.pem",
            )
        elif network.demands_certificate(address, host):
            yield broken(
                "broker",
                f"Redis at {address.text} demands a certificate from its clients",
                WHY,
                "add ?ssl_certfile=/path/client.pem&ssl_keyfile=/path/client.key to SSE_PUSH_BROKER_URL, or "
                "set tls-auth-clients no on the server",
            )
    elif not is_plain:
        said = reply.split(b"\r\n")[0][:60].decode(errors="backslashreplace") or "nothing"
        yield broken(
            "broker",
            f"{address.text} does not answer as it should: it is no Redis, and answers {said!r} to PING",
            WHY,
            "correct host and port in SSE_PUSH_BROKER_URL",
        )


def _unix(settings: Settings) -> Iterator[Finding]:
    path = unquote(urlsplit(settings.broker_url).path)
    advice = "correct the path: unix:///run/redis/redis.sock, as `unixsocket` in redis.conf has it"
    try:
        is_socket = stat.S_ISSOCK(os.stat(path).st_mode)
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(network.TIMEOUT)
            probe.connect(path)
        return
    except FileNotFoundError:
        what = f"there is no file {path}"
    except PermissionError:
        what = f"the user of this process may not open {path}"
        advice = "set unixsocketperm 770 in redis.conf, and add this user to the group of Redis"
    except OSError as error:
        what = f"no server listens at {path}: {error.strerror or error}"
        advice = "start Redis" if is_socket else advice
    yield broken("broker", what, WHY, advice)
