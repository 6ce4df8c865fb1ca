"""Publishing to Redis: many publishers share the calls of publish.lua, and each gets its own outcome."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from redis.exceptions import NoPermissionError, NoScriptError, ResponseError

from ...errors import BrokerUnavailable
from .. import native_threads
from ..group_commit import GroupCommit, Request
from .client import SHARE, Clients, milliseconds, translated, translated_errors, try_again
from .declared import Run
from .direct import DirectConnection, command, packed
from .publish_call import PublishCall, PublishReply, PublishScript
from .refusals import is_refusal

#: How long each try waits for replicas, as a share of a call's time. Reading the reply may take SHARE,
#: which is a bit more.
WAIT_SHARE = SHARE * 0.8


class Publishing:
    """Publishes from all threads of a process.

    :param make_script: makes the calls of one line.
    :param note: called with each reply of publish.lua and with a function. That function runs one more
        command over the same connection, because to open a connection takes as long as several calls.
    :param timeout: how long `publish` blocks at most, in seconds; in a native thread, twice as long.
    :param wait_replicas: how many replicas must have an event before `publish` returns.
    """

    def __init__(
        self,
        clients: Clients,
        make_script: Callable[[], PublishScript],
        note: Callable[[PublishReply, Run], None],
        timeout: float,
        wait_replicas: int,
    ) -> None:
        self._clients = clients
        self._make_script = make_script
        self.note = note
        self._timeout = timeout
        self.setting = clients.setting
        self.replicas = wait_replicas
        self.wait = command(
            3, packed([b"WAIT", b"%d" % wait_replicas, b"%d" % milliseconds(timeout * WAIT_SHARE)])
        )
        self._lines: dict[int, Line] = {}  # by the number of the courier; 0 for all other threads

    def publish(self, requests: Sequence[Request]) -> None:
        """Stores and announces requests, each in an atomic step, and sets their outcomes. Blocks.

        :raises BrokerUnavailable: if something ends the thread that serves native threads.
        """
        if not native_threads.is_native():
            self._publish_here(requests)
            return
        with translated_errors(self.setting):
            native_threads.run(partial(self._publish_here, requests), 2 * self._timeout)

    def _publish_here(self, requests: Sequence[Request]) -> None:
        number = native_threads.courier_number()
        line = self._lines.get(number)
        if line is None:
            connection = DirectConnection(lambda: self._clients.current.connection_pool)
            line = self._lines.setdefault(number, Line(self, connection, self._make_script(), self._timeout))
        line.group.publish(requests)

    def close(self) -> None:
        """Closes the connections. May be called twice."""
        for number, line in list(self._lines.items()):
            if number == 0:
                line.connection.close()
            else:
                native_threads.run_in_courier(partial(self._close_in_courier, number))

    def _close_in_courier(self, number: int) -> None:
        if number == native_threads.courier_number():  # not a courier that has ended
            self._lines[number].connection.close()


class Line:
    """What the greenlets and threads share that may use the same connection: the queue and the connection."""

    def __init__(
        self, publishing: Publishing, connection: DirectConnection, script: PublishScript, timeout: float
    ) -> None:
        self.publishing = publishing
        self.connection = connection
        self.script = script
        self.group = GroupCommit(lambda requests: SharedCall(self, script.calls(requests)), timeout)

    def run(self, *words: str) -> Any:
        """Runs one command and returns its reply. Blocks.

        Only the publisher that leads may call this method, or the handler of a signal that interrupted it.

        :raises BrokerUnavailable: if Redis does not reply in time, or refuses the command.
        """
        with translated_errors(self.publishing.setting):
            return self.connection.run(command(len(words), packed([each.encode() for each in words])))


class SharedCall:
    """The calls of publish.lua for a group of publishers, sent together. See `group_commit.Commit`."""

    def __init__(self, line: Line, calls: list[PublishCall]) -> None:
        self._line = line
        self._shared = line.publishing
        self._left = calls  # the calls without an outcome

    def run(self, seconds: float) -> None:
        """See `group_commit.Commit.run`."""
        try_again(seconds, self._shared.setting, self._store_all)

    def _store_all(self) -> None:
        while self._left:
            replies = self._round_trip()
            calls, self._left, failure = self._left, [], None
            for call, reply in zip(calls, replies, strict=True):
                if isinstance(reply, ResponseError):
                    failure = self._refused(call, reply) or failure
                else:
                    read = PublishReply.read(reply)
                    self._left += self._line.script.settle(call, read)
                    self._shared.note(read, self._line.run)
            if failure is not None:
                raise failure

    def _round_trip(self) -> list[Any]:
        """Sends the calls, and waits for replicas once. Returns the replies to the calls.

        :raises BrokerUnavailable: if fewer replicas than `wait_replicas` have the events in time.
        """
        # Redis's command WAIT waits only for writes of its own connection. The script writes in every try,
        # even if an earlier try stored the events, so WAIT always has a write to wait for.
        replies = self._send()
        if any(isinstance(each, NoScriptError) for each in replies):
            self._line.connection.run(self._line.script.load())
            replies = self._send()
        if self._shared.replicas:
            replicas = replies.pop()
            if isinstance(replicas, Exception):
                raise replicas
            if replicas < self._shared.replicas:
                raise BrokerUnavailable(
                    f"Redis: {replicas} of {self._shared.replicas} replicas have the event"
                )
        return replies

    def _send(self) -> list[Any]:
        commands = [each.next_try() for each in self._left]
        if self._shared.replicas:
            commands.append(self._shared.wait)
        return self._line.connection.round_trip(commands)

    def _refused(self, call: PublishCall, error: ResponseError) -> ResponseError | None:
        """Deals with a call that Redis has refused. Returns the error if another try may help."""
        if isinstance(error, NoPermissionError) and len(call.requests) > 1:
            # Redis or the script has checked the rights before it stored any event. One publisher must not
            # fail the others.
            self._left += [self._line.script.call([each]) for each in call.requests]
        elif is_refusal(error):
            for each in call.requests:
                each.outcome = translated(error, self._shared.setting)
        else:
            self._left.append(call)
            return error
        return None
