"""Settings: every key with its default, unit and reason, and where its value comes from."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, ClassVar

from ..errors import ConfigError, UnknownSetting
from . import values
from .channel_policies import ChannelPolicies, ChannelRule
from .channels_setting import channel_rules, rules_in_file
from .values import ReadValue

#: Prefix of every key, in `app.config` and in the environment.
KEY_PREFIX = "SSE_PUSH_"

#: The names of environment variables that Kubernetes and Docker set for a service named `sse-push`.
_OF_A_SERVICE = re.compile(r"SSE_PUSH(_SERVICE_HOST|_SERVICE_PORT(_\w+)?|_PORT(_[0-9]+_\w+)?)")

#: The keys in which the older package Flask-SSE looks for the URL of Redis.
REDIS_KEYS = ("SSE_REDIS_URL", "REDIS_URL")

#: What to change if `memory://` does not fit.
SHARE_BROKER = (
    "set SSE_PUSH_BROKER_URL=redis://localhost:6379/0, or without a Redis SSE_PUSH_BROKER_URL=embedded:// "
    "(pip install 'flask-sse-push[embedded]')"
)


def _setting(default: Any, read: ReadValue) -> Any:
    return field(default=default, metadata={"read": read})


@dataclass(frozen=True)
class Settings:
    """The settings of one registered blueprint. Times are in seconds, sizes in bytes."""

    #: The key that the broker's URL was read from, for messages. This is no setting.
    broker_key: ClassVar[str] = KEY_PREFIX + "BROKER_URL"

    # Where events are kept, and how long.

    #: Where events are kept and announced. `memory://` serves one process only.
    broker_url: str = _setting("memory://", values.url)
    #: Prefix of every key and pub/sub name in Redis. With different prefixes, apps can share a database.
    prefix: str = _setting("sse", values.matching(r"[A-Za-z0-9_.-]{1,64}", "1 to 64 of A-Z a-z 0-9 _ . -"))
    #: How many events the broker keeps for each channel. A client that missed no more than these gets them.
    history_size: int = _setting(1000, values.whole(1, 100_000, "events"))
    #: How long the broker keeps the events of a channel after the newest event, in seconds.
    history_ttl: float = _setting(3600.0, values.number(1, 10**8, "seconds"))
    #: How many bytes the events of a channel may have together; 0 means no limit. The oldest events go first.
    #: The broker always keeps the newest event.
    history_bytes: int = _setting(0, values.whole(0, 10**10, "bytes"))
    #: What is different for channels that match a pattern: `{"user:*": {"history": 50, "ttl": 86400}}`. The
    #: first pattern that matches a channel counts. What its policy leaves out comes from the other settings.
    channels: tuple[ChannelRule, ...] = _setting((), channel_rules)
    #: Path of a JSON file with the value of `SSE_PUSH_CHANNELS`, instead of that setting.
    channels_file: str = _setting("", values.path)
    #: The largest text of one event, in bytes. Bigger events would slow down every stream of the worker.
    max_message: int = _setting(10_000, values.whole(1, 100_000_000, "bytes"))
    #: Seconds until a publish gives up and raises BrokerUnavailable.
    publish_timeout: float = _setting(2.0, values.number(0.05, 600, "seconds"))
    #: How many Redis replicas must have an event before `publish` returns. If fewer have the event, `publish`
    #: raises BrokerUnavailable.
    wait_replicas: int = _setting(0, values.whole(0, 10, "replicas"))
    #: Over how many shards `redis+cluster://` spreads the channels. Each shard has an order of its own; with
    #: 1 there is one order for all channels.
    shards: int = _setting(8, values.whole(1, 8, "shards"))

    # Who may listen.

    #: Channels (fnmatch patterns) that anyone may listen to. Your list replaces the default: name `sse` too
    #: if it is to stay open. `@sse.authorize` decides about all other channels.
    public_channels: tuple[str, ...] = _setting(("sse",), values.patterns)
    #: Origins whose pages may read streams with the user's cookies. Pages of all other foreign origins are
    #: refused. An origin is exact: scheme, host and port.
    cors_origins: tuple[str, ...] = _setting((), values.origins)
    #: At most this many seconds pass between two checks whether the user of an open stream may still listen.
    recheck: float = _setting(60.0, values.number(0.1, 86_400, "seconds"))

    # How much a client may take.

    #: How many channels one stream may have.
    max_channels: int = _setting(50, values.whole(1, 1000, "channels"))
    #: How many streams one worker may have open; further requests get 503. Two further limits may be lower,
    #: so that the worker can still serve pages: generator streams may use 90 % of gunicorn's
    #: worker_connections, and all streams together stay below the limit of open files.
    max_streams: int = _setting(20_000, values.whole(1, 1_000_000, "streams"))
    #: How many streams one user may have open over all workers; 0 means no limit.
    max_streams_per_user: int = _setting(0, values.whole(0, 1_000_000, "streams"))
    #: How many streams one address (for IPv6: a /64 network) may have open over all workers; 0 means no
    #: limit.
    max_streams_per_address: int = _setting(0, values.whole(0, 1_000_000, "streams"))
    #: How often one user may try to connect, such as `60/minute`; empty means no limit. Requests to join or
    #: leave channels are counted apart, with the same limit. Needs the extra `limits`.
    rate_per_user: str = _setting("", values.rate)
    #: How often one address may try to connect, such as `60/minute`; empty means no limit. Requests to join
    #: or leave channels are counted apart, with the same limit. Needs the extra `limits`.
    rate_per_address: str = _setting("", values.rate)
    #: How many bytes may wait for one slow client. If more wait, its stream is closed; the client reconnects
    #: and resumes from its cursor.
    max_buffer: int = _setting(1_000_000, values.whole(1000, 10**9, "bytes"))
    #: How long a client may read nothing before its connection is cut, in seconds.
    write_timeout: float = _setting(10.0, values.number(0.1, 3600, "seconds"))

    # How streams reach the browser.

    #: How the bytes of a stream reach its socket: `hijack` (works with gunicorn's gevent worker only),
    #: `generator`, or `auto`. `auto` uses `hijack` wherever it works.
    transport: str = _setting("auto", values.matching("auto|generator|hijack", "auto, generator or hijack"))
    #: Path at which `sse.init_app(app)` registers the blueprint.
    url_prefix: str = _setting(
        "/stream", values.matching(r"(/[^/\s?#\ud800-\udfff]+)+", "a path such as /stream")
    )
    #: Seconds without any event until a heartbeat is sent. Many proxies close a quiet connection after 30 to
    #: 60 seconds.
    heartbeat: float = _setting(15.0, values.number(0.05, 3600, "seconds"))
    #: How long clients wait before they reconnect, in seconds, on average. Each client gets a random value
    #: from 50 to 150 % of this time.
    retry: float = _setting(2.0, values.number(0.01, 3600, "seconds"))
    #: How long a stopping worker takes to close its streams one after another, in seconds.
    drain: float = _setting(0.5, values.number(0, 600, "seconds"))
    #: How long events are collected before they are sent together, in seconds. A longer time means fewer and
    #: bigger chunks, which are sent later. With 0, events are sent at once; events that arrive while the
    #: worker is sending are sent together afterwards.
    coalesce: float = _setting(0.0, values.number(0, 10, "seconds"))
    #: Channels (fnmatch patterns) whose events are sent in batches, and how long a batch waits for more
    #: events, in milliseconds: `{"ticks:*": 100}`, in the environment `ticks:*=100`. Clients need PushClient,
    #: or must read batches as docs/protocol.md describes.
    batch_ms: tuple[tuple[str, int], ...] = _setting((), values.waits)
    #: Whether streams are compressed with gzip for clients that accept it. First read in the README what
    #: compression means for secrets.
    http_compression: bool = _setting(False, values.flag)

    # Who is there.

    #: Channels (fnmatch patterns) whose users `sse.presence` counts. Events on these channels report which
    #: users come and go.
    presence_channels: tuple[str, ...] = _setting((), values.patterns)
    #: Seconds from the end of a user's last stream until the user is seen as gone. A page reload takes less
    #: time, so a user who reloads the page stays present.
    presence_grace: float = _setting(15.0, values.number(0, 3600, "seconds"))

    # What a worker keeps in memory, and how it watches the broker.

    #: How many bytes of recent events a worker keeps in memory for one channel. If the history is bigger than
    #: this, the worker reads from Redis again for each client that is far behind.
    replica_bytes: int = _setting(16_000_000, values.whole(1000, 10**10, "bytes"))
    #: At most about how many bytes of recent and missed events a worker keeps in memory. One half is for the
    #: copies of the channels, the other half for streams that missed more events than these copies have.
    catch_up_bytes: int = _setting(64_000_000, values.whole(10_000, 10**11, "bytes"))
    #: At most about how many bytes of missed events one stream holds in memory, and one call reads from
    #: Redis. Each event counts 500 bytes more than it has.
    catch_up_page: int = _setting(1_000_000, values.whole(1000, 10**9, "bytes"))
    #: How long a worker stays subscribed to a channel after its last stream left the channel, in seconds. A
    #: reloaded page soon needs the channel again.
    linger: float = _setting(30.0, values.number(0, 3600, "seconds"))
    #: Seconds between two probes. A probe proves that the worker's link still delivers events. After two
    #: probes without an echo the worker opens a new link.
    probe: float = _setting(3.0, values.number(0.05, 600, "seconds"))

    # What the log says.

    #: Whether this package writes its log to stderr as JSON. Needs the extra `logs`.
    log_json: bool = _setting(False, values.flag)
    #: Seconds between two log lines with totals; 0 means no such lines.
    log_totals: float = _setting(60.0, values.number(0, 86_400, "seconds"))
    #: Which share of the events this package traces with OpenTelemetry, from 0 to 1; 0 means none. Set the
    #: same share for all processes. Needs the extra `trace`.
    trace: float = _setting(0.0, values.number(0, 1))

    @cached_property
    def policies(self) -> ChannelPolicies:
        """What the settings say about each channel: `settings.policies["user:7"]` is a `ChannelPolicy`."""
        return ChannelPolicies(self)

    @classmethod
    def key(cls, name: str) -> str:
        """Returns the configuration key of a field: `SSE_PUSH_RETRY` for `retry`."""
        return KEY_PREFIX + name.upper()

    @classmethod
    def for_url(cls, url: str, config: Mapping[str, Any]) -> Settings:
        """Returns the settings of an announcer that has no app.

        :param url: the value of `SSE_PUSH_BROKER_URL`.
        :param config: further settings. Each key must be the key of a setting.
        :raises ConfigError: if a value is not valid, or a key is unknown; also if `config` has another broker
            URL than `url`.
        """
        ConfigError.raise_all(list(_unknown(cls, config)))
        settings = cls.load({**config, cls.key("broker_url"): url})
        if config.get(cls.key("broker_url"), url) != url:
            raise ConfigError(cls.key("broker_url"), "***", "left out, because `url` names the broker")
        return settings

    @classmethod
    def load(cls, config: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> Settings:
        """Returns the settings. Each value comes from `config`, else the environment, else the default.

        If `SSE_PUSH_BROKER_URL` is not set, the broker's URL is read from `SSE_REDIS_URL` or `REDIS_URL`, as
        in the package Flask-SSE.

        :raises ConfigError: if values are not valid, or if keys that begin with `SSE_PUSH_` are unknown. The
            message tells of all of them.
        """
        environ = os.environ if environ is None else environ
        given = [
            key for key in list(environ) if key.startswith(KEY_PREFIX) and not _OF_A_SERVICE.fullmatch(key)
        ]
        mistakes: list[ConfigError] = [
            *_unknown(cls, {key: config[key] for key in list(config) if key.startswith(KEY_PREFIX)}),
            *_unknown(cls, {key: environ[key] for key in given}, ", which the environment has"),
        ]
        found: dict[str, Any] = {}
        broker_key = cls.broker_key
        for spec in fields(cls):
            key = cls.key(spec.name)
            for name in (key, *REDIS_KEYS) if spec.name == "broker_url" else (key,):
                value = _value_of(name, config, environ)
                if value is not None:
                    with _gathered(mistakes):
                        found[spec.name] = spec.metadata["read"](name, value)
                    broker_key = name if spec.name == "broker_url" else broker_key
                    break
        if found.get("channels_file"):
            with _gathered(mistakes):
                found["channels"] = _rules_in_file(cls, found)
        ConfigError.raise_all(mistakes)
        settings = cls(**found)
        object.__setattr__(settings, "broker_key", broker_key)  # the dataclass is frozen
        return settings


@contextlib.contextmanager
def _gathered(mistakes: list[ConfigError]) -> Iterator[None]:
    """Adds a ConfigError of the `with` block to `mistakes`, in place of raising it."""
    try:
        yield
    except ConfigError as error:
        mistakes.append(error)


def _value_of(name: str, config: Mapping[str, Any], environ: Mapping[str, str]) -> Any:
    """Returns the value of the key `name` from the config, else from the environment, else None.

    An empty value of `SSE_REDIS_URL` or `REDIS_URL`, the keys of the package Flask-SSE, is skipped.
    """
    for source in (config, environ):
        value = source.get(name)
        if value is not None and not (value == "" and name in REDIS_KEYS):
            return value
    return None


def _rules_in_file(settings: type[Settings], found: Mapping[str, Any]) -> tuple[ChannelRule, ...]:
    """Reads the file that `SSE_PUSH_CHANNELS_FILE` names. Raises ConfigError if there are rules already."""
    key, path = settings.key("channels_file"), found["channels_file"]
    if found.get("channels"):
        raise ConfigError(key, path, f"left out, because {settings.key('channels')} is set too")
    return rules_in_file(key, path)


def _unknown(
    settings: type[Settings], config: Mapping[str, Any], source: str = ""
) -> Iterator[UnknownSetting]:
    """Yields an error about each key that no setting has.

    :param source: where the keys come from, for the message; "" for the config.
    """
    names = {spec.name: settings.key(spec.name) for spec in fields(settings)}
    for key, value in config.items():
        if key not in names.values():
            meant = key.upper().removeprefix(KEY_PREFIX).lower()
            similar = [names[name] for name in difflib.get_close_matches(meant, names, 1)]
            yield UnknownSetting(key, value, sorted(names.values()), similar, source)
