"""redis-py's clients, and calls with them: time limits, the second try, errors as BrokerUnavailable."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

from redis import ConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.exceptions import AuthenticationError, RedisError, ResponseError, TimeoutError
from redis.retry import Retry

from ...config import ChannelPolicies
from ...errors import BrokerUnavailable
from ...protocol.printable import printable
from .. import forks, native_threads
from .refusals import advice, is_refusal

#: At most this many connections for commands in one process, besides the one that publishes, and as many more
#: for native threads if some publish. Further callers wait for a free connection.
MAX_CONNECTIONS = 20
#: How many times one call is tried. The second try helps if the connection of the first was already broken.
#: If no reply comes in time, the call is tried until its time is over: a try does not take all of the time.
TRIES = 2
#: A try has three steps: it waits for a free connection, connects, and reads. Each step may take this share
#: of the call's time.
SHARE = 1 / 4
#: After this share of a call's time, no further try begins: a try with an open connection takes SHARE.
LAST_START = 1 - SHARE * 0.8


@contextlib.contextmanager
def connection_apart(pool: ConnectionPool, **changes: Any) -> Iterator[Any]:
    """A context manager that gives a connection which the pool does not know, and closes the connection.

    :param changes: options of the connection that differ from the pool's.
    :raises BrokerUnavailable: if the server cannot be reached, or the block raises an error of redis-py.
    """
    with translated_errors():
        connection: Any = pool.connection_class(**{**pool.connection_kwargs, **changes})
        try:
            connection.connect()
            yield connection
        finally:
            connection.disconnect()


#: A function that runs a command within the broker's time limit. The command must be safe to run twice.
#: Raises BrokerUnavailable if the command fails.
Call = Callable[[Callable[[], Any]], Any]


class BrokerSettings(NamedTuple):
    """What the settings say about a broker on Redis, besides its URL."""

    policies: ChannelPolicies
    prefix: str
    timeout: float  # how long one call may take, in seconds
    setting: str = ""  # what errors call the setting with the broker's URL
    wait_replicas: int = 0  # how many replicas must have an event before `publish` returns

    @property
    def of_broker(self) -> tuple[ChannelPolicies, str, float, int]:
        """The arguments of `RedisBroker` that follow the clients."""
        return self.policies, self.prefix, self.timeout, self.wait_replicas


class Clients:
    """redis-py's clients of one broker: one for most threads, and one for the courier of native threads.

    :param make_pool: makes the pool of one client. The second client must not share connections, locks or
        lookups with the first.
    :param setting: what errors call the setting with the broker's URL; see `refusals.advice`.
    """

    def __init__(self, make_pool: Callable[[], ConnectionPool], setting: str = "") -> None:
        self.setting = setting
        native_threads.prepare()
        self._make_pool = make_pool
        self.main = Redis(connection_pool=make_pool())
        self._of_courier: Redis | None = None
        self._courier = 0  # the number of the courier that has `_of_courier`
        self._lost: list[Redis] = []  # of couriers that have ended, and whose event loops are gone
        forks.watch(self)

    @property
    def current(self) -> Redis:
        """The client whose connections belong to the thread that runs this code."""
        courier = native_threads.courier_number()
        if not courier:
            return self.main
        if self._of_courier is None or self._courier != courier:
            if self._of_courier is not None:
                self._lost.append(self._of_courier)
            self._of_courier, self._courier = Redis(connection_pool=self._make_pool()), courier
        return self._of_courier

    def close(self) -> None:
        """Closes the connections of both clients. May be called twice."""
        _disconnect(self.main)
        of_courier, self._of_courier = self._of_courier, None
        if of_courier is not None:
            native_threads.run_in_courier(partial(_disconnect, of_courier))

    def after_fork(self) -> None:
        """See `forks.Part.after_fork`. The child gets a client of its own."""
        for client in (self.main, self._of_courier):
            if client is not None:
                forks.keep(client)
                close_copies(client.connection_pool)
        self.main, self._of_courier = Redis(connection_pool=self._make_pool()), None


def _disconnect(client: Redis) -> None:
    client.close()
    client.connection_pool.disconnect()


def close_copies(pool: ConnectionPool) -> None:
    """Closes a forked child's copies of the connections of a pool."""
    for name in ("_connections", "_available_connections", "_in_use_connections"):
        for connection in list(getattr(pool, name, ())):
            close_copy(connection)


def close_copy(connection: Any) -> None:
    """Closes a forked child's copy of one connection of redis-py.

    `connection.disconnect()` would leave the copy open until the event loop of gevent runs in the child.
    """
    socket, connection._sock = connection._sock, None
    if socket is not None:
        forks.close_copy(socket)


def without_retries(timeout: float) -> dict[str, Any]:
    """Returns redis-py's options for a connection that waits `timeout` seconds and repeats no command."""
    return {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        # With its default, redis-py would run a script again after a lost reply, without a notice.
        "retry": Retry(NoBackoff(), 0),
        "health_check_interval": 0,
        "protocol": 2,
        "client_name": "flask-sse-push",
    }


def pool_options(timeout: float) -> dict[str, Any]:
    """Returns redis-py's options for a pool whose connections serve calls of at most `timeout` seconds."""
    share = timeout * SHARE
    return {"max_connections": MAX_CONNECTIONS, "timeout": share, **without_retries(share)}


def url_options(url: str) -> dict[str, Any]:
    """Returns redis-py's options for a Redis URL, without the host. `ssl` says whether to use TLS."""
    options: dict[str, Any] = {**parse_url(url)}
    del options["host"]
    options["ssl"] = options.pop("connection_class", None) is not None
    return options


def call_within(timeout: float, setting: str, command: Callable[[], Any]) -> Any:
    """Runs a command. If the connection fails and time is left, runs the command again.

    In a native thread, the courier runs the command: the connections belong to the courier.

    :param timeout: how long all tries together may take, in seconds.
    :param setting: what errors call the setting with the broker's URL.
    :param command: must be safe to run several times.
    :raises BrokerUnavailable: if the last try failed.
    """
    with translated_errors(setting):
        return native_threads.run(partial(_try_in_parent, timeout, setting, command), 2 * timeout)


def try_again(timeout: float, setting: str, command: Callable[[], Any]) -> Any:
    """Does what `call_within` does, in this thread. Does not stop in the child of a fork: the caller must."""
    last_start = time.monotonic() + timeout * LAST_START
    for tries in itertools.count(1):
        try:
            return command()
        except (BrokerUnavailable, RedisError, OSError) as error:
            failure = error if isinstance(error, BrokerUnavailable) else translated(error, setting)
            cause = failure.__cause__
            is_over = time.monotonic() > last_start
            enough = tries >= TRIES and not isinstance(cause, TimeoutError)
            if is_over or enough or isinstance(cause, AuthenticationError) or is_refusal(cause):
                raise failure from cause
    raise AssertionError("the last try returns or raises")


_try_in_parent = forks.stays_in_parent(try_again)


@contextlib.contextmanager
def translated_errors(setting: str = "") -> Iterator[None]:
    """Turns redis-py's errors in the `with` block into BrokerUnavailable.

    :param setting: what errors call the setting with the broker's URL; "" if they say nothing about it.
    """
    try:
        yield
    except (RedisError, OSError) as error:
        raise translated(error, setting) from error


def translated(error: Exception, setting: str = "") -> BrokerUnavailable:
    """Returns an error of redis-py as BrokerUnavailable. See `translated_errors`."""
    # The server may have written the text, which logs and terminals show.
    text = f"Redis: {type(error).__name__}: {printable(str(error))}{advice(error, setting)}"
    unavailable = BrokerUnavailable(text)
    unavailable.__cause__ = error
    return unavailable


def is_wrong_type(error: Exception) -> bool:
    """Whether a command failed because its key has another type: another program has written the key."""
    return isinstance(error, ResponseError) and "WRONGTYPE" in str(error)


def milliseconds(seconds: float) -> int:
    """Returns `seconds` in whole milliseconds, at least 1."""
    return max(1, round(seconds * 1000))
