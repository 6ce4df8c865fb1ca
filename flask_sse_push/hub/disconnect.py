"""Handles the `disconnect` and `channels` commands: closes streams, or changes their channels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from ..history.shards import Shards
from ..protocol.frames import close_frame
from .channel_changes import ChannelChange, ChannelChanges, start_of_change
from .commands import Commands, Effect
from .fanout import Fanout
from .group import Delivery
from .stream import Stream


class Disconnector:
    """Finds streams of one worker, closes them, and removes channels from them.

    Handlers of commands call its methods, under the hub's lock. What they return are effects.

    :param streams: the open streams by connection.
    :param deliver: writes deliveries to streams. Called without the lock.
    :param changed: called with a stream, the channels it joined and those it left. Without the lock.
    :param retry: seconds after which clients come back, on average.
    :param clock: monotonic seconds.
    """

    def __init__(
        self,
        streams: Mapping[str, Stream],
        fanout: Fanout,
        shards: Shards,
        channel_changes: ChannelChanges,
        changed: Callable[[Stream, tuple[str, ...], tuple[str, ...]], None],
        *,
        retry: float,
        clock: Callable[[], float],
        deliver: Callable[[Sequence[Delivery | Effect]], None],
    ) -> None:
        self._streams = streams
        self._fanout = fanout
        self._shards = shards
        self._channel_changes = channel_changes
        self._changed = changed
        self._retry = retry
        self._clock = clock
        self._deliver = deliver

    def register(self, commands: Commands) -> None:
        """Registers its handlers of commands."""
        commands.on("disconnect", self._disconnect)
        commands.on("channels", self._change_channels)

    def find(
        self, *, user_id: str | None = None, connection: str | None = None, channel: str | None = None
    ) -> list[Stream]:
        """The open streams that match all given arguments."""
        found: Iterable[Stream] = self._streams.values()
        if connection is not None:
            found = [self._streams[connection]] if connection in self._streams else []
        if user_id is not None:
            found = [stream for stream in found if stream.user_id == user_id]
        return [stream for stream in found if channel is None or channel in stream.subscribed]

    def close_streams(
        self, streams: Iterable[Stream], reason: str, *, reconnect: bool, notice: bytes = b""
    ) -> list[Effect]:
        """Stops the delivery of events to some streams at once. The effects write `notice` and close them."""
        streams = list(streams)
        effects = self._write_pending(streams)
        for stream in streams:
            stream.closing = True
            stream.reason = reason
            self._fanout.remove(stream)
            frame = notice + close_frame(reason, reconnect=reconnect, retry=self._retry)
            effects.append(partial(stream.end, frame))
        return effects

    def remove_channels(
        self, stream: Stream, channels: Iterable[str], reason: str, notice: bytes
    ) -> list[Effect]:
        """Stops the delivery of events of some channels to a stream at once. The effects write `notice`.

        A stream that has no other channels is closed. So is one that is still recovering or joining one of
        `channels`, or whose channels lie on several shards: its client opens a new stream.
        """
        unwanted = frozenset(channels)
        gone = tuple(name for name in stream.channels if name in unwanted)
        left = tuple(name for name in stream.subscribed if name not in unwanted)
        group = stream.group
        stream.app_joined -= unwanted
        joining = self._channel_changes.is_joining(stream, unwanted)
        if stream.closing or not (gone or joining):
            return []
        placement = self._shards.placement(stream.subscribed)
        has_others = len(left) > 1  # besides the channel of broadcasts
        if not has_others or group is None or joining or placement.is_sharded:
            return self.close_streams([stream], reason, reconnect=has_others, notice=notice)
        effects = self._write_pending([stream])
        self._fanout.remove(stream)
        self._fanout.add(stream, left, group.positions)
        effects += self._write_pending([])
        self._shards.exit(gone, self._clock())
        for name in gone:
            self._channel_changes.note_left(stream, name, group.last)
        effects.append(partial(stream.write, stream.own_chunk(notice)))
        effects.append(partial(self._changed, stream, (), gone))
        return effects

    def _write_pending(self, streams: Iterable[Stream]) -> list[Effect]:
        """An effect that writes the batches waiting for these streams; none if nothing waits."""
        pending = self._fanout.take_pending([stream.group for stream in streams])
        return [partial(self._deliver, pending)] if pending else []

    def _disconnect(self, arguments: Mapping[str, Any]) -> list[Effect]:
        wanted = {key: arguments[key] for key in ("user_id", "connection", "channel") if arguments.get(key)}
        return self.close_streams(self.find(**wanted), "disconnected", reconnect=bool(arguments["reconnect"]))

    def _change_channels(self, arguments: Mapping[str, Any]) -> list[Effect]:
        for stream in self.find(connection=arguments["connection"]):
            if arguments.get("vouched"):
                stream.app_joined |= frozenset(arguments["join"])
            start = start_of_change(arguments)
            self._channel_changes.add(ChannelChange(stream, arguments["join"], arguments["leave"], start))
        return []
