"""The commander: sends commands to all workers, for example to end streams. It needs no Flask app."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ..errors import InvalidEvent, shown
from ..protocol.channel import checked_channel, checked_channels
from ..protocol.command import REVOKE, Command, command_publication
from ..protocol.user import checked_user_id
from .base import Broker


class Commander:
    """Sends commands to every worker that has streams, from any process. Several threads may share it.

    All methods block until the broker has stored the command, at most `SSE_PUSH_PUBLISH_TIMEOUT` seconds.
    """

    _broker: Broker

    def disconnect(
        self,
        *,
        user_id: object = None,
        connection: str | None = None,
        channel: str | None = None,
        reconnect: bool = True,
    ) -> None:
        """Ends streams on all workers. The streams first get all events that were published before this call.

        A stream ends if it matches all arguments: `user_id=7, channel="news"` ends the streams of user 7 that
        listen to news.

        :param reconnect: False asks the clients not to reconnect. A client that reconnects all the same is
            not refused.
        :raises InvalidEvent: if `user_id`, `connection` and `channel` are all missing, if one of them is
            empty, or if `channel` is not a channel name.
        :raises BrokerUnavailable: if the broker does not reply in time. The streams may end or not.
        """
        which = {
            "user_id": None if user_id is None else checked_user_id(user_id),
            "connection": connection,
            "channel": None if channel is None else checked_channel(channel),
        }
        if connection is not None and connection != "":
            _check_connection(connection)
        if connection == "" or all(value is None for value in which.values()):
            raise InvalidEvent("disconnect", "needs a user_id, a connection or a channel that is not empty")
        self.command("disconnect", reconnect=reconnect, **which)

    def revoke(self, user_id: object, channel: str | None = None) -> None:
        """Takes a channel from all open streams of a user at once. Without `channel`, ends these streams.

        A stream that has other channels stays open and gets `sse.error` 1201. A stream that has no channel
        left gets `sse.close` and ends; its client is asked not to reconnect. New streams of the user are
        checked as always.

        :raises TypeError: if `user_id` is not the id of a user: a string, a whole number or a UUID.
        :raises InvalidEvent: if `user_id` is empty, or if `channel` is not a channel name.
        :raises BrokerUnavailable: if the broker does not reply in time. The streams then change or not.
        """
        name = None if channel is None else checked_channel(channel)
        self.command(REVOKE, user_id=checked_user_id(user_id), channel=name, reason="revoked")

    def join(
        self,
        connection: str,
        channel: str | Iterable[str],
        *,
        since: str | None = None,
        last: int | None = None,
    ) -> None:
        """Lets an open stream join channels, on whichever worker it is. Its client gets `sse.channels`.

        `@sse.authorize` is not called for these channels, neither now nor when rights are checked again. The
        stream keeps the channels until the stream ends, or until `revoke` or `leave` takes them away.

        :param connection: the id of the stream, which its client got in `sse.open`.
        :param since: a cursor; the stream first gets the events of the channels after this cursor. `earliest`
            means all events in the history.
        :param last: how many of the newest events the stream first gets; cannot be used with `since`.
        :raises InvalidEvent: if an argument is not valid, or if both `since` and `last` are given.
        :raises BrokerUnavailable: if the broker does not reply in time. It is then unknown whether the stream
            joins.
        """
        self.change(connection, checked_channels(channel), (), since=since, last=last)

    def leave(self, connection: str, channel: str | Iterable[str]) -> None:
        """Lets an open stream leave channels, on whichever worker it is. Its client gets `sse.channels`.

        :param connection: the id of the stream, which its client got in `sse.open`.
        :raises InvalidEvent: if an argument is not valid.
        :raises BrokerUnavailable: if the broker does not reply in time. It is then unknown whether the stream
            leaves.
        """
        self.change(connection, (), checked_channels(channel))

    def change(
        self,
        connection: str,
        join: Sequence[str],
        leave: Sequence[str],
        *,
        since: str | None = None,
        last: int | None = None,
        asked: str | None = None,
    ) -> None:
        """Lets an open stream join and leave channels in one step.

        :param asked: a cursor that is older than the app's answer that the stream may join. A channel that
            was revoked after this cursor is not joined. None means that the app itself made the change:
            `@sse.authorize` is then not called for the channels when rights are checked again.
        """
        _check_connection(connection)
        if since is not None and last is not None:
            raise InvalidEvent("since", "cannot be given together with last")
        self.command(
            "channels",
            connection=connection,
            join=list(join),
            leave=list(leave),
            since=since,
            last=last,
            asked=asked,
        )

    def command(self, name: str, **arguments: Any) -> str:
        """Sends a command to every worker that has streams, and returns the cursor of the command.

        A worker that has no handler for `name` ignores the command.

        :param arguments: the arguments of the handler; JSON must be able to represent them.
        :raises InvalidEvent: if an argument cannot be written as JSON.
        :raises BrokerUnavailable: if the broker does not reply in time; workers then get the command or not.
        """
        publication = command_publication(Command(name, arguments))
        return str(self._broker.publish([publication])[0])


def _check_connection(connection: object) -> None:
    if not isinstance(connection, str) or not connection:
        problem = f"is {shown(connection)}, must be the id of one stream, which its client got in sse.open"
        raise InvalidEvent("connection", problem)
