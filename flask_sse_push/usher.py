"""The usher: shows streams out, or out of a channel, when a command says so.

Handlers of commands call it under the hub's lock, at the command's place in the order of events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from .control import Act, Commands
from .drain import close_frame
from .fanout import Fanout
from .group import Delivery
from .observer import Observer
from .rooms import Change, Rooms, start_of
from .shards import Shards
from .sink import Sink


class Usher:
    """What is done to the streams of one worker on command.

    :param sinks: its streams by connection.
    :param deliver: writes chunks out, without the lock.
    :param retry: seconds after which clients come back, on average.
    :param clock: monotonic seconds.
    """

    def __init__(
        self,
        sinks: Mapping[str, Sink],
        fanout: Fanout,
        shards: Shards,
        rooms: Rooms,
        observer: Observer,
        *,
        retry: float,
        clock: Callable[[], float],
        deliver: Callable[[Sequence[Delivery | Act]], None],
    ) -> None:
        self._sinks = sinks
        self._fanout = fanout
        self._shards = shards
        self._rooms = rooms
        self._observer = observer
        self._retry = retry
        self._clock = clock
        self._deliver = deliver

    def obey(self, commands: Commands) -> None:
        """Has it carry out what every worker knows: to end streams, and to change their channels."""
        commands.on("disconnect", self._disconnect)
        commands.on("channels", self._change_channels)

    def matching(
        self, *, user_id: str | None = None, connection: str | None = None, channel: str | None = None
    ) -> list[Sink]:
        """The streams that meet all that is given. The caller holds the lock, as handlers of commands do."""
        found: Iterable[Sink] = self._sinks.values()
        if connection is not None:
            found = [self._sinks[connection]] if connection in self._sinks else []
        if user_id is not None:
            found = [sink for sink in found if sink.user_id == user_id]
        return [sink for sink in found if channel is None or channel in sink.subscribed]

    def dismiss(
        self, sinks: Iterable[Sink], reason: str, *, reconnect: bool, notice: bytes = b""
    ) -> list[Act]:
        """Lets no later event reach `sinks`; the acts that end them, after `notice`. The caller holds the
        lock."""
        sinks = list(sinks)
        acts = self._flushing(sinks)
        for sink in sinks:
            sink.dismissed = True
            sink.reason = reason
            self._fanout.part(sink)
            frame = notice + close_frame(reason, reconnect=reconnect, retry=self._retry)
            acts.append(partial(sink.end, frame))
        return acts

    def withdraw(self, sink: Sink, channels: Iterable[str], reason: str, notice: bytes) -> list[Act]:
        """Lets no later event of `channels` reach `sink`, which keeps its others; the acts that tell it by
        `notice`. One that has no others is ended. The caller holds the lock.
        """
        wanted = frozenset(channels)
        gone = tuple(name for name in sink.channels if name in wanted)
        left = tuple(name for name in sink.subscribed if name not in wanted)
        group = sink.group
        sink.vouched -= wanted
        joining = self._rooms.is_joining(sink, wanted)
        if sink.dismissed or not (gone or joining):
            return []
        route = self._shards.route(sink.subscribed)
        if len(left) == 1 or group is None or joining or route.is_split:  # it begins again with what is left
            return self.dismiss([sink], reason, reconnect=len(left) > 1, notice=notice)
        acts = self._flushing([sink])
        self._fanout.part(sink)
        self._fanout.enlist(sink, left, group.positions)
        acts += self._flushing([])
        route.exit(gone, self._clock())
        for name in gone:
            self._rooms.note_left(sink, name, group.last)
        acts.append(partial(sink.write, sink.own(notice)))
        acts.append(partial(self._observer.changed, sink, (), gone))
        return acts

    def _flushing(self, sinks: Iterable[Sink]) -> list[Act]:
        """The act that writes what waits, for the groups of `sinks` too; none when nothing does."""
        flushed = self._fanout.flushed([sink.group for sink in sinks])
        return [partial(self._deliver, flushed)] if flushed else []

    def _disconnect(self, arguments: Mapping[str, Any]) -> list[Act]:
        wanted = {key: arguments[key] for key in ("user_id", "connection", "channel") if arguments.get(key)}
        return self.dismiss(self.matching(**wanted), "disconnected", reconnect=bool(arguments["reconnect"]))

    def _change_channels(self, arguments: Mapping[str, Any]) -> list[Act]:
        for sink in self.matching(connection=arguments["connection"]):
            if arguments.get("vouched"):
                sink.vouched |= frozenset(arguments["join"])
            start = start_of(arguments)
            self._rooms.add(Change(sink, arguments["join"], arguments["leave"], start))
        return []
