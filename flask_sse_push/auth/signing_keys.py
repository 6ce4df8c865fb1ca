"""The public keys of one identity provider, as this worker knows them.

A thread of its own fetches the keys, so an app's request waits at most WAIT seconds, and only if the worker
does not know the key that it needs. All greenlets and native threads of the worker share one fetch.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Collection
from functools import partial
from math import inf
from typing import TYPE_CHECKING

from ..brokers import forks, native_threads
from ..errors import ErrorCode, Refused, shown
from ..hub import background
from .identity import invalid_token
from .jwks_client import TIMEOUT, JwksClient

if TYPE_CHECKING:
    from jwt import PyJWK

logger = logging.getLogger(__name__)

#: Keys that are older than this many seconds are fetched again when a token comes. The token does not wait.
REFRESH = 300.0
#: For keys that are older than this many seconds, a token waits for the fetch: no token has come for a while,
#: and the provider may have withdrawn a key meanwhile.
OLD = 600.0
#: While the provider cannot be reached, the last keys are used until they are this many seconds old.
KEEP = 86_400.0
#: At most how many seconds a request waits for a fetch.
WAIT = TIMEOUT
#: How often a request looks whether the fetch of another event loop is done, in seconds.
POLL = 0.25
#: A fetch that takes longer than this many seconds is ended, and another fetch may begin.
HUNG = 2 * TIMEOUT
#: Seconds from one fetch because of an unknown key to the next. Anybody can send tokens with unknown keys.
UNKNOWN_EVERY = 30.0
#: The first and the longest pause after a failed fetch, in seconds. Each pause is twice the last.
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 30.0
#: At most this many requests with unknown keys wait at the same time, if the worker has keys. Each request
#: that waits takes one of the connections that the server allows.
MAX_WAITING = 500
#: At most this many keys are tried for one token. A token without `kid` may fit several.
MAX_TRIES = 10


class Fetch:
    """One fetch of the keys, which any thread may wait for."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self._is_done = False
        self._ends: dict[int, threading.Event] = {}  # one for each event loop: gevent's are not for several

    def end(self) -> None:
        """Wakes whoever waits for the fetch: in this event loop at once, in others within POLL seconds."""
        self._is_done = True
        end = self._ends.get(native_threads.courier_number())
        if end is not None:
            end.set()

    def wait(self, until: float) -> bool:
        """Blocks until the fetch is done. Returns False if it is not done at the monotonic time `until`."""
        end = self._ends.setdefault(native_threads.courier_number(), threading.Event())
        while not self._is_done:
            left = until - time.monotonic()
            if left <= 0:
                return False
            end.wait(min(left, POLL))
        return True


class SigningKeys:
    """The keys of one JWKS. Any thread may call `find`.

    :param url: the address of the JWKS.
    :param algorithms: the algorithms that tokens may use.
    """

    def __init__(self, url: str, algorithms: Collection[str]) -> None:
        self._url = url
        self._algorithms = algorithms
        self._client = JwksClient(url, algorithms)
        self._keys: tuple[PyJWK, ...] = ()
        self._fetched = -inf  # when the fetch of `_keys` began, as a monotonic time, like all times here
        self._asked = -inf  # when the last fetch because of an unknown key began
        self._failures = 0  # how many fetches have failed in a row
        self._retry = -inf  # when the next fetch may begin, after one that failed
        self._waiting = 0  # how many requests with unknown keys wait
        self._fetch: Fetch | None = None  # the one that is under way
        self._lock = native_threads.lock()  # guards the fields above
        forks.watch(self)

    def after_fork(self) -> None:
        """Called in a forked child. The child keeps the keys; the fetch belongs to its parent."""
        self._lock = native_threads.lock()
        self._fetch, self._waiting = None, 0
        self._client.after_fork()

    def find(
        self, kid: str | None, algorithm: str, check: Callable[[], object], failed: Collection[object] = ()
    ) -> list[PyJWK]:
        """Returns the keys that may have signed a token: at least one, at most MAX_TRIES.

        Blocks at most WAIT seconds, if the keys must be fetched.

        :param kid: the field `kid` in the header of the token; None if it has none.
        :param algorithm: the field `alg` in the header of the token.
        :param check: called before the worker fetches the keys for an unknown key. If `check` raises an
            error, the worker fetches nothing, and `find` raises this error.
        :param failed: the keys, as objects of `cryptography`, that have not signed the token.
        :raises Refused: 401, if the provider has no such key; 503, if the worker cannot tell whether it has.
        """
        if algorithm not in self._algorithms:
            raise invalid_token(f"the algorithm {shown(algorithm)} is not accepted")
        match = partial(self._matching, kid, algorithm, failed)
        found = match()
        if found and time.monotonic() - self._fetched < REFRESH:
            return found
        if not found:
            check()
        return native_threads.run(partial(self._find, match))  # waiting takes an event loop

    def _find(self, match: Callable[[], list[PyJWK]]) -> list[PyJWK]:
        arrived = time.monotonic()
        while True:
            found = match()
            fetch = self._awaited(bool(found), arrived)
            if fetch is None or not self._wait(fetch, bool(found), arrived + WAIT):
                break
        if not found:
            raise self._refusal(arrived)
        return found

    def _matching(self, kid: str | None, algorithm: str, failed: Collection[object]) -> list[PyJWK]:
        if time.monotonic() - self._fetched > KEEP:
            return []
        fitting = (key for key in self._keys if key.algorithm_name == algorithm and key.key not in failed)
        return [key for key in fitting if kid is None or key.key_id == kid][:MAX_TRIES]

    def _awaited(self, is_known: bool, arrived: float) -> Fetch | None:
        """Returns the fetch that a request must wait for; None if it need not wait. May start a fetch.

        :param is_known: whether the worker has the key for the request's token.
        :param arrived: when the request came.
        """
        now = time.monotonic()
        age = now - self._fetched
        if is_known and age < REFRESH:
            return None
        waits = not is_known or (age >= OLD and not self._failures)
        fetch = self._fetch
        if fetch is not None and now - fetch.began > HUNG:
            self._client.abort()
            self._fail(fetch, TimeoutError(f"it has not ended its answer in {HUNG:g} seconds"))
        with self._lock:
            starts = self._fetch is None and self._may_fetch(is_known, arrived, now)
            if starts:
                self._fetch = Fetch()
            fetch = self._fetch
        if starts and fetch is not None:
            self._start(fetch)
        return fetch if waits else None

    def _may_fetch(self, is_known: bool, arrived: float, now: float) -> bool:
        if now < self._retry:
            return False
        if now - self._fetched >= REFRESH:
            return True
        if is_known or self._fetched >= arrived or now - self._asked < UNKNOWN_EVERY:
            return False
        self._asked = now
        return True

    def _wait(self, fetch: Fetch, is_known: bool, until: float) -> bool:
        """Waits for a fetch. Returns False if it is not done in time, or if too many requests wait."""
        if is_known or not self._keys:
            return fetch.wait(until)
        with self._lock:
            if self._waiting >= MAX_WAITING:
                return False
            self._waiting += 1
        try:
            return fetch.wait(until)
        finally:
            with self._lock:
                self._waiting -= 1

    def _refusal(self, arrived: float) -> Refused:
        """Returns the error for a token with an unknown key: 503 if the provider may have it, else 401."""
        now = time.monotonic()
        if self._fetched >= arrived and not self._failures:
            return invalid_token(f"{self._url} has no such key")
        if self._failures or self._fetch is not None:
            message, pause = "the keys that check the token cannot be read now", self._retry - now
        else:
            message, pause = "the key of the token is not known yet", self._asked + UNKNOWN_EVERY - now
        wait = max(1.0, pause) * random.uniform(1, 1.5)  # so that not all clients come back at once
        return Refused(503, ErrorCode.SERVICE_UNAVAILABLE, f"{message}; try again soon", retry_after=wait)

    # -- one fetch ---------------------------------------------------------------------------------------

    def _start(self, fetch: Fetch) -> None:
        try:
            background.start("keys", partial(self._run, fetch), repeat=False)
        except Exception as error:  # there is no room for another thread
            self._fail(fetch, error)

    def _run(self, fetch: Fetch) -> None:
        try:
            keys = self._client.fetch_keys()
        except BaseException as error:
            self._fail(fetch, error)
            if not isinstance(error, Exception):  # something ends this thread
                raise
        else:
            self._succeed(fetch, keys)

    def _succeed(self, fetch: Fetch, keys: tuple[PyJWK, ...]) -> None:
        with self._lock:
            if self._fetch is not fetch:  # it took too long
                return
            self._fetch, self._keys, self._fetched = None, keys, fetch.began
            failures, self._failures, self._retry = self._failures, 0, -inf
        if failures:
            logger.info("the keys of %s can be read again", self._url)
        fetch.end()

    def _fail(self, fetch: Fetch, error: BaseException) -> None:
        now = time.monotonic()
        with self._lock:
            if self._fetch is not fetch:
                return
            self._fetch = None
            self._failures += 1
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(self._failures - 1, 10))
            self._retry = now + pause
            left = self._fetched + KEEP - now
            ends = left <= 0 and bool(self._keys)
            if ends:
                self._keys = ()
        if self._failures == 1 or ends:  # each outage is logged once, and once more when the last keys end
            self._log_failure(error, left)
        fetch.end()

    def _log_failure(self, error: BaseException, left: float) -> None:
        reason = shown(str(error) or type(error).__name__)[1:-1]
        if left > 0:
            text = "cannot read the keys of %s: %s. The last keys are used for at most %.1f more hours"
            logger.warning(text, self._url, reason, left / 3600)
        else:
            text = (
                "cannot read the keys of %s: %s. Requests with its tokens get 503 until the keys can be read"
            )
            logger.error(text, self._url, reason)
