"""Settings: every key with its default, unit and reason, and how its value is read and checked."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from .errors import ConfigError

#: All keys begin with this, in `app.config` and in the environment.
KEY_PREFIX = "SSE_PUSH_"

#: Milliseconds that events may wait for a batch, at most: batches save work and are no history.
MAX_BATCH_MS = 5000

#: The keys where flask-sse looks for its URL.
REDIS_KEYS = ("SSE_REDIS_URL", "REDIS_URL")

#: Reads the value of a key; raises ConfigError.
ReadValue = Callable[[str, Any], Any]


def _number(lowest: float, highest: float, unit: str) -> ReadValue:
    def read(key: str, value: Any) -> float:
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            number = float("nan")
        if isinstance(value, bool) or not lowest <= number <= highest:
            raise ConfigError(key, value, f"a number of {unit} from {lowest:g} to {highest:g}")
        return number

    return read


def _whole(lowest: int, highest: int, unit: str) -> ReadValue:
    def read(key: str, value: Any) -> int:
        number = int(value) if re.fullmatch(r"[0-9]{1,15}", str(value)) else -1
        if isinstance(value, bool) or not lowest <= number <= highest:
            raise ConfigError(key, value, f"a whole number of {unit} from {lowest} to {highest}")
        return number

    return read


def _names(key: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [name.strip() for name in value.split(",") if name.strip()]
    if not isinstance(value, (list, tuple, set, frozenset)) or not all(
        isinstance(name, str) for name in value
    ):
        raise ConfigError(key, value, "a list of names, or one string with commas")
    return tuple(value)


_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def _flag(key: str, value: Any) -> bool:
    word = str(value).lower()
    if word not in (*_TRUE, *_FALSE):
        raise ConfigError(key, value, "true or false")
    return word in _TRUE


def _waits(key: str, value: Any) -> tuple[tuple[str, int], ...]:
    """Reads milliseconds by pattern from a mapping, or from text such as `ticks:*=100, prices=250`."""
    pairs: Any = value
    if isinstance(value, str):
        pairs = [pair.partition("=")[::2] for pair in value.split(",") if pair.strip()]
    elif isinstance(value, Mapping):
        pairs = value.items()
    with contextlib.suppress(TypeError, ValueError):
        waits = [(str(pattern).strip(), str(wait).strip()) for pattern, wait in pairs]
        if all(p and re.fullmatch("[0-9]{1,4}", wait) and int(wait) <= MAX_BATCH_MS for p, wait in waits):
            return tuple((pattern, int(wait)) for pattern, wait in waits)
    expected = f"milliseconds from 0 to {MAX_BATCH_MS} by pattern of channels, such as {{'ticks:*': 100}}"
    raise ConfigError(key, value, expected)


def _matching(pattern: str, expected: str) -> ReadValue:
    def read(key: str, value: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise ConfigError(key, value, expected)
        return value

    return read


_rate = _matching(
    r"([1-9][0-9]{0,8}/(second|minute|hour))?",
    "empty, or a number per second, minute or hour, such as 60/minute",
)


def _origins(key: str, value: Any) -> tuple[str, ...]:
    origins = _names(key, value)
    for origin in origins:
        if not re.fullmatch(r"[a-z][a-z0-9+.-]*://[a-z0-9._~:\[\]-]+", origin):
            raise ConfigError(
                key,
                value,
                "exact origins as browsers send them, such as https://app.example.com: in small letters, "
                "without a path, and neither * nor null, which would let any page read with a user's cookies",
            )
    return origins


def _url(key: str, value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[a-z+]+://.*", value):
        shown = without_secret(value) if isinstance(value, str) else value
        raise ConfigError(key, shown, "a URL such as redis://localhost:6379/0")
    return value


def without_secret(url: str) -> str:
    """The URL for logs: without user, password and options."""
    shown = re.sub(r"^([A-Za-z+]*).*@", r"\1://***@", url, flags=re.DOTALL)
    return re.sub(r"\?.+", "?***", shown, flags=re.DOTALL)


def _setting(default: Any, read: ReadValue) -> Any:
    return field(default=default, metadata={"read": read})


@dataclass(frozen=True)
class Settings:
    """The settings of one registered blueprint. Times are in seconds, sizes in bytes."""

    #: How streams reach their sockets: `hijack` (gunicorn's gevent worker only), `generator`, or `auto`:
    #: `hijack` where it works.
    transport: str = _setting("auto", _matching("auto|generator|hijack", "auto, generator or hijack"))
    #: Where events are kept and announced. `memory://` serves one process only.
    broker_url: str = _setting("memory://", _url)
    #: Begins every key and pub/sub name in Redis, so that several apps can share a database.
    prefix: str = _setting("sse", _matching(r"[A-Za-z0-9_.-]{1,64}", "1 to 64 of A-Z a-z 0-9 _ . -"))
    #: Path for `sse.init_app(app)`.
    url_prefix: str = _setting("/stream", _matching(r"(/[^/\s]+)+", "a path such as /stream"))
    #: Channels (fnmatch patterns) that anyone may listen to; `@sse.authorize` decides about the rest.
    public_channels: tuple[str, ...] = _setting(("sse",), _names)
    #: Origins whose pages may read streams, with cookies; all other foreign pages are then refused. Exact:
    #: scheme, host and port.
    cors_origins: tuple[str, ...] = _setting((), _origins)
    #: Seconds, at most, until an open stream's rights are checked again.
    recheck: float = _setting(60.0, _number(0.1, 86_400, "seconds"))
    #: Channels (fnmatch patterns) whose users `sse.presence` counts; events say who joins and leaves them.
    presence_channels: tuple[str, ...] = _setting((), _names)
    #: Seconds after a user's last stream until they count as gone: after a page reload they are back.
    presence_grace: float = _setting(15.0, _number(0, 3600, "seconds"))
    #: Events kept for each channel: a client can miss this many and still get them.
    history_size: int = _setting(1000, _whole(1, 100_000, "events"))
    #: Seconds that a channel's events are kept after the newest of them.
    history_ttl: float = _setting(3600.0, _number(1, 10**8, "seconds"))
    #: Bytes of one event's text: bigger ones slow every stream of the worker.
    max_message: int = _setting(10_000, _whole(1, 100_000_000, "bytes"))
    #: Channels one stream may have.
    max_channels: int = _setting(50, _whole(1, 1000, "channels"))
    #: Streams one worker holds; further ones get 503. Generator streams also stop at 90 % of gunicorn's
    #: worker_connections, and all streams below the limit of open files, so that pages still answer.
    max_streams: int = _setting(20_000, _whole(1, 1_000_000, "streams"))
    #: Streams one user may have open, over all workers; 0 is no limit.
    max_streams_per_user: int = _setting(0, _whole(0, 1_000_000, "streams"))
    #: Streams one address (IPv6: a /64 network) may have open, over all workers; 0 is no limit.
    max_streams_per_address: int = _setting(0, _whole(0, 1_000_000, "streams"))
    #: Attempts to connect by one user, such as `60/minute`; empty is no limit. Needs the extra `limits`.
    rate_per_user: str = _setting("", _rate)
    #: Attempts to connect from one address, as `rate_per_user`.
    rate_per_address: str = _setting("", _rate)
    #: Bytes that wait for a slow client; with more, its stream is closed, and it resumes from its cursor.
    max_buffer: int = _setting(1_000_000, _whole(1000, 10**9, "bytes"))
    #: Seconds that a client may read nothing before its connection is cut.
    write_timeout: float = _setting(10.0, _number(0.1, 3600, "seconds"))
    #: Seconds of silence before a heartbeat. Proxies close quiet connections after 30 to 60.
    heartbeat: float = _setting(15.0, _number(0.05, 3600, "seconds"))
    #: Seconds a client waits before it reconnects, on average: each waits 50 to 150 % of it.
    retry: float = _setting(2.0, _number(0.01, 3600, "seconds"))
    #: Seconds until a publish gives up with BrokerUnavailable.
    publish_timeout: float = _setting(2.0, _number(0.05, 600, "seconds"))
    #: Seconds that events are gathered and then sent together: fewer, bigger chunks, but later. With 0,
    #: events are sent at once; those that arrive during a dispatch are sent together.
    coalesce: float = _setting(0.0, _number(0, 10, "seconds"))
    #: Channels (fnmatch patterns) whose events are sent in batches, and the milliseconds that a batch waits:
    #: `{"ticks:*": 100}`, in the environment `ticks:*=100`. Needs PushClient or docs/protocol.md.
    batch_ms: tuple[tuple[str, int], ...] = _setting((), _waits)
    #: Whether streams are compressed (gzip) for clients that accept it. First read the README about secrets.
    http_compression: bool = _setting(False, _flag)
    #: Seconds between probes, which prove that a worker's link works. After two without an echo the worker
    #: opens a new link.
    probe: float = _setting(3.0, _number(0.05, 600, "seconds"))
    #: Seconds a channel stays subscribed after the worker's last stream left it: page reloads come back.
    linger: float = _setting(30.0, _number(0, 3600, "seconds"))
    #: Seconds over which a stopping worker closes its streams.
    drain: float = _setting(0.5, _number(0, 600, "seconds"))
    #: Bytes of recent events that a worker keeps in memory for one channel. With less than the history holds,
    #: the worker reads from Redis for each client that is far behind.
    replica_bytes: int = _setting(16_000_000, _whole(1000, 10**10, "bytes"))
    #: Redis replicas that must have an event before publish returns; with fewer it raises BrokerUnavailable.
    wait_replicas: int = _setting(0, _whole(0, 10, "replicas"))
    #: Shards, each with its own order, that `redis+cluster://` spreads the channels over; 1 keeps one order.
    shards: int = _setting(8, _whole(1, 8, "shards"))
    #: Whether this package's log goes to stderr as JSON; needs the extra `logs`.
    log_json: bool = _setting(False, _flag)
    #: Seconds between two lines of totals in the log; 0 for none.
    log_totals: float = _setting(60.0, _number(0, 86_400, "seconds"))

    @classmethod
    def key(cls, name: str) -> str:
        """The configuration key of the field `name`."""
        return KEY_PREFIX + name.upper()

    @classmethod
    def load(cls, config: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> Settings:
        """Settings from an app's config, then the environment, then the defaults.

        Without `SSE_PUSH_BROKER_URL`, the broker is at `SSE_REDIS_URL` or `REDIS_URL`, as in flask-sse.

        :raises ConfigError: for a wrong value, and for a key with the prefix that does not exist.
        """
        environ = os.environ if environ is None else environ
        _refuse_unknown(cls, config)
        values: dict[str, Any] = {}
        for spec in fields(cls):
            key = cls.key(spec.name)
            for name in (key, *REDIS_KEYS) if spec.name == "broker_url" else (key,):
                value = _found(name, config, environ)
                if value is not None:
                    values[spec.name] = spec.metadata["read"](name, value)
                    break
        return cls(**values)


def _found(name: str, config: Mapping[str, Any], environ: Mapping[str, str]) -> Any:
    """The value in the config, else in the environment. An empty value of flask-sse's keys counts as none."""
    for source in (config, environ):
        value = source.get(name)
        if value is not None and not (value == "" and name in REDIS_KEYS):
            return value
    return None


def _refuse_unknown(settings: type[Settings], config: Mapping[str, Any]) -> None:
    known = {settings.key(spec.name) for spec in fields(settings)}
    for key in config:
        if key.startswith(KEY_PREFIX) and key not in known:
            raise ConfigError(key, config[key], "one of the known keys: " + ", ".join(sorted(known)))
