"""The usher: shows streams out, or out of a channel, when a command says so.

Handlers of commands call it under the hub's lock, at the command's place in the order of events.
"""

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
from .listener import StreamListener
from .stream import Stream


class Disconnector:
    """What is done to the streams of one worker on command.

    :param sinks: its streams by connection.
    :param deliver: writes chunks out, without the lock.
    :param retry: seconds after which clients come back, on average.
    :param clock: monotonic seconds.
    """

    def __init__(
        self,
        streams: Mapping[str, Stream],
        fanout: Fanout,
        shards: Shards,
        channel_changes: ChannelChanges,
        listener: StreamListener,
        *,
        retry: float,
        clock: Callable[[], float],
        deliver: Callable[[Sequence[Delivery | Effect]], None],
    ) -> None:
        self._streams = streams
        self._fanout = fanout
        self._shards = shards
        self._channel_changes = channel_changes
        self._listener = listener
        self._retry = retry
        self._clock = clock
        self._deliver = deliver

    def run(self, commands: Commands) -> None:
        """Has it carry out what every worker knows: to end streams, and to change their channels."""
        commands.on("disconnect", self._disconnect)
        commands.on("channels", self._change_channels)

    def matching(
        self, *, user_id: str | None = None, connection: str | None = None, channel: str | None = None
    ) -> list[Stream]:
        """The streams that meet all that is given. The caller holds the lock, as handlers of commands do."""
        found: Iterable[Stream] = self._streams.values()
        if connection is not None:
            found = [self._streams[connection]] if connection in self._streams else []
        if user_id is not None:
            found = [stream for stream in found if stream.user_id == user_id]
        return [stream for stream in found if channel is None or channel in stream.subscribed]

    def dismiss(
        self, streams: Iterable[Stream], reason: str, *, reconnect: bool, notice: bytes = b""
    ) -> list[Effect]:
        """Lets no later event reach `sinks`; the acts that end them, after `notice`. The caller holds the
        lock."""
        streams = list(streams)
        effects = self._flushing(streams)
        for stream in streams:
            stream.dismissed = True
            stream.reason = reason
            self._fanout.part(stream)
            frame = notice + close_frame(reason, reconnect=reconnect, retry=self._retry)
            effects.append(partial(stream.end, frame))
        return effects

    def withdraw(self, stream: Stream, channels: Iterable[str], reason: str, notice: bytes) -> list[Effect]:
        """Lets no later event of `channels` reach `sink`, which keeps its others; the acts that tell it by
        `notice`. One that has no others is ended. The caller holds the lock.
        """
        wanted = frozenset(channels)
        gone = tuple(name for name in stream.channels if name in wanted)
        left = tuple(name for name in stream.subscribed if name not in wanted)
        group = stream.group
        stream.vouched -= wanted
        joining = self._channel_changes.is_joining(stream, wanted)
        if stream.dismissed or not (gone or joining):
            return []
        placement = self._shards.placement(stream.subscribed)
        if (
            len(left) == 1 or group is None or joining or placement.is_sharded
        ):  # it begins again with what is left
            return self.dismiss([stream], reason, reconnect=len(left) > 1, notice=notice)
        effects = self._flushing([stream])
        self._fanout.part(stream)
        self._fanout.enlist(stream, left, group.positions)
        effects += self._flushing([])
        self._shards.exit(gone, self._clock())
        for name in gone:
            self._channel_changes.note_left(stream, name, group.last)
        effects.append(partial(stream.write, stream.own(notice)))
        effects.append(partial(self._listener.changed, stream, (), gone))
        return effects

    def _flushing(self, streams: Iterable[Stream]) -> list[Effect]:
        """The act that writes what waits, for the groups of `sinks` too; none when nothing does."""
        flushed = self._fanout.flushed([stream.group for stream in streams])
        return [partial(self._deliver, flushed)] if flushed else []

    def _disconnect(self, arguments: Mapping[str, Any]) -> list[Effect]:
        wanted = {key: arguments[key] for key in ("user_id", "connection", "channel") if arguments.get(key)}
        return self.dismiss(self.matching(**wanted), "disconnected", reconnect=bool(arguments["reconnect"]))

    def _change_channels(self, arguments: Mapping[str, Any]) -> list[Effect]:
        for stream in self.matching(connection=arguments["connection"]):
            if arguments.get("vouched"):
                stream.vouched |= frozenset(arguments["join"])
            start = start_of_change(arguments)
            self._channel_changes.add(ChannelChange(stream, arguments["join"], arguments["leave"], start))
        return []
