"""Handles the `disconnect` and `channels` commands: closes streams, or changes their channels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from ..protocol.entry import TAB_MARK, tab_of
from ..protocol.frames import close_frame
from .channel_changes import ChannelChange, start_of_change
from .commands import Effect
from .group import Delivery
from .state import HubState
from .stream import Stream


class Disconnector:
    """Finds streams of one worker, closes them, and removes channels from them.

    Handlers of commands call the methods, under the hub's lock. The handlers return the effects that the
    methods return.

    :param deliver: writes deliveries to streams. Called without the hub's lock.
    """

    def __init__(self, state: HubState, deliver: Callable[[Sequence[Delivery | Effect]], None]) -> None:
        self._state = state
        self._deliver = deliver
        state.commands.on("disconnect", self._disconnect)
        state.commands.on("channels", self._change_channels)

    def find(
        self, *, user_id: str | None = None, connection: str | None = None, channel: str | None = None
    ) -> list[Stream]:
        """Returns the open streams that match all given arguments. Any thread may call.

        :param connection: the id of a stream, or of one of the tabs that share a stream.
        """
        found = list(self._state.streams.values())  # a copy in one step: other threads may change the dict
        if connection is not None:
            connection = connection.partition(TAB_MARK)[0]
            found = [self._state.streams[connection]] if connection in self._state.streams else []
        if user_id is not None:
            found = [stream for stream in found if stream.user_id == user_id]
        return [stream for stream in found if channel is None or channel in stream.subscribed]

    def close_streams(
        self, streams: Iterable[Stream], reason: str, *, reconnect: bool, notice: bytes = b""
    ) -> list[Effect]:
        """Stops the delivery of events to some streams at once.

        :returns: the effects that write `notice` to the streams and close them.
        """
        streams, retry = list(streams), self._state.settings.retry
        effects = self._write_pending(streams)
        for stream in streams:
            stream.closing = True
            stream.reason = reason
            self._state.fanout.remove(stream)
            last = close_frame(reason, reconnect=reconnect, retry=retry, plain=stream.plain)
            effects.append(partial(stream.end, notice + last))
        return effects

    def remove_channels(
        self, stream: Stream, channels: Iterable[str], reason: str, notice: bytes
    ) -> list[Effect]:
        """Stops the delivery of events of some channels to a stream at once.

        The stream is closed if it has no other channels. A stream with other channels is closed too if it
        still gets missed events, if it is joining one of `channels`, or if its channels lie on several
        shards. The client of such a stream opens a new stream.

        :returns: the effects that write `notice` to the stream, and close it if necessary.
        """
        unwanted = frozenset(channels)
        gone = tuple(name for name in stream.channels if name in unwanted)
        left = tuple(name for name in stream.subscribed if name not in unwanted)
        group = stream.group
        stream.app_joined -= unwanted
        joining = self._state.channel_changes.is_joining(stream, unwanted)
        if stream.closing or not (gone or joining):
            return []
        placement = self._state.shards.placement(stream.subscribed)
        has_others = len(left) > 1  # the broadcast channel is not counted
        if not has_others or group is None or joining or placement.is_sharded:
            return self.close_streams([stream], reason, reconnect=has_others, notice=notice)
        effects = self._write_pending([stream])
        self._state.fanout.remove(stream)
        self._state.fanout.add(stream, left, group.positions)
        effects += self._write_pending([])
        self._state.shards.exit(gone, self._state.clock())
        for name in gone:
            self._state.channel_changes.note_left(stream, name, group.last)
        effects.append(partial(stream.write, stream.own_chunk(notice)))
        effects.append(partial(self._state.listeners.tell_changed, stream, (), gone))
        return effects

    def _write_pending(self, streams: Iterable[Stream]) -> list[Effect]:
        """Returns an effect that writes the waiting batches of these streams; no effect if no batch waits."""
        pending = self._state.fanout.take_pending([stream.group for stream in streams])
        return [partial(self._deliver, pending)] if pending else []

    def _disconnect(self, arguments: Mapping[str, Any]) -> list[Effect]:
        given = ((key, arguments.get(key)) for key in ("user_id", "connection", "channel"))
        wanted = {key: value for key, value in given if value is not None}
        if not wanted:
            return []  # a command without criteria must not close every stream
        return self.close_streams(self.find(**wanted), "disconnected", reconnect=bool(arguments["reconnect"]))

    def _change_channels(self, arguments: Mapping[str, Any]) -> list[Effect]:
        for stream in self.find(connection=arguments["connection"]):
            if arguments.get("vouched"):
                stream.app_joined |= frozenset(arguments["join"])
            start = start_of_change(arguments)
            self._state.channel_changes.add(
                ChannelChange(
                    stream, arguments["join"], arguments["leave"], start, tab_of(arguments["connection"])
                )
            )
        return []
