"""Handles the commands `disconnect`, `revoke` and `channels`: closes streams, or changes their channels."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from ..errors import ErrorCode
from ..protocol.command import COMMAND_CHANNEL, REVOKE, REVOKE_SESSION
from ..protocol.entry import TAB_MARK, tab_of
from ..protocol.frames import error_frame
from .channel_changes import ChannelChange, start_of_change
from .commands import Effect
from .group import Delivery
from .revocations import Revocation, Revocations, whose
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
        self._revocations = Revocations(state.shards.all[0].history_cache)
        state.commands.on("disconnect", self._disconnect)
        state.commands.on("channels", self._change_channels)
        for name in (REVOKE, REVOKE_SESSION):
            state.commands.on(name, self._revoke, late=self._revoke_late)
        state.commands.on_heard(self._begin_to_hear)
        state.commands.on_lost(self._revocations.note_lost)

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
        streams = list(streams)
        effects = self._write_pending(streams)
        for stream in streams:
            effects.append(self._closing(stream, reason, reconnect=reconnect, notice=notice))
        return effects

    def _closing(self, stream: Stream, reason: str, *, reconnect: bool, notice: bytes = b"") -> Effect:
        """Stops the delivery of events to a stream at once. Returns the effect that closes the stream."""
        stream.closing = True
        stream.reason = reason
        self._state.fanout.remove(stream)
        retry = self._state.settings.retry
        return partial(stream.end_with_reason, reason, reconnect=reconnect, retry=retry, notice=notice)

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

    # -- rights that end -----------------------------------------------------------------------------------

    def _revoke(self, arguments: Mapping[str, Any]) -> list[Effect]:
        return self.revoke(arguments, self._state.commands.current)

    def revoke(self, arguments: Mapping[str, Any], id: int = 0) -> list[Effect]:
        """Takes a channel, or all channels, from the streams of a user; see `MessageAnnouncer.revoke`.

        :param id: the position of the command; 0 if the command was not published.
        """
        revocation = Revocation.of(arguments, id, time.monotonic())
        self._revocations.add(revocation)
        return self._apply(revocation, self._streams_of(revocation))

    def _revoke_late(self, arguments: Mapping[str, Any], at: float) -> list[Effect]:
        """Remembers a revocation that was published before this worker subscribed to commands.

        :param at: the monotonic time of the command.
        """
        self._revocations.add(Revocation.of(arguments, self._state.commands.current, at))
        return []

    def _begin_to_hear(self, id: int, at: float) -> list[Effect]:
        """Closes the streams that have waited for earlier revocations, and have lost rights by them.

        :param id: the position after which this worker knows every command.
        :param at: the monotonic time at which the broker had reached this position.
        """
        self._revocations.know_since(id, at)
        waiting = [stream for stream in self.find() if stream.grant is not None and not stream.closing]
        ends = [self.revoke_from_new(stream) for stream in waiting]
        return [end for end in ends if end is not None]

    def _streams_of(self, revocation: Revocation) -> list[Stream]:
        if revocation.user_id is not None:
            return self.find(user_id=revocation.user_id)
        session = revocation.session
        return [each for each in self.find() if each.grant is not None and each.grant.session == session]

    def revoke_from_new(self, stream: Stream) -> Effect | None:
        """Closes a new stream if the app has revoked rights of the stream since it gave them.

        The caller holds the hub's lock. If this worker does not know what was revoked since then, the stream
        is closed too, and its client connects again.

        :returns: the effect that closes the stream; None if the stream stays open.
        """
        if not self.hears_commands:
            return None  # the stream waits for `_begin_to_hear` before it gets events
        missed = self._revocations.of_new(stream)
        if missed is None:
            return self._closing(stream, "recheck", reconnect=True)
        for revocation in missed:
            if revocation.channel is None:
                return self._closing(stream, revocation.reason, reconnect=False)
        lost = {revocation.channel for revocation in missed}
        gone = [name for name in stream.channels if name in lost]
        if not gone:
            return None
        has_others = len(gone) < len(stream.channels)
        return self._closing(stream, "revoked", reconnect=has_others, notice=forbidden_frames(gone))

    @property
    def hears_commands(self) -> bool:
        """Whether this worker has handled the commands from before it subscribed to commands."""
        cache = self._state.shards.all[0].history_cache.caches.get(COMMAND_CHANNEL)
        return cache is not None and cache is self._state.commands.heard

    def revoked_since(self, user_id: str | None, session: str | None, asked: str) -> list[Revocation] | None:
        """Returns the revocations of a user or a session after the cursor `asked`. Any thread may call.

        Returns None if this worker may not know all of these revocations.
        """
        with self._state.lock:
            if self.hears_commands:
                return self._revocations.since_position(user_id, session, asked)
            return None

    def _apply(self, revocation: Revocation, streams: Iterable[Stream]) -> list[Effect]:
        channel, reason = revocation.channel, revocation.reason
        effects: list[Effect] = []
        published = self._published_at(revocation)
        for stream in streams:
            # Perhaps the user has got the right again since then. The client comes back, and is checked.
            is_later = stream.grant is not None and stream.grant.began > published
            if channel is None:
                why = "recheck" if is_later else reason
                effects += self.close_streams([stream], why, reconnect=is_later)
            elif not is_later:
                effects += self.remove_channels(stream, [channel], reason, forbidden_frames([channel]))
            elif self._has(stream, channel):
                effects += self.close_streams([stream], "recheck", reconnect=True)
        return effects

    def _has(self, stream: Stream, channel: str) -> bool:
        """Whether a stream listens to a channel or is joining it."""
        joining = self._state.channel_changes.is_joining(stream, frozenset([channel]))
        return not stream.closing and (channel in stream.channels or joining)

    def _published_at(self, revocation: Revocation) -> float:
        """Returns the monotonic time at which a revocation was published, by the broker's clock."""
        if not revocation.id:
            return revocation.at
        clock = self._state.shards.all[0].history_cache.broker_clock
        return min(revocation.at, clock.stored_by(revocation.id))

    def _disconnect(self, arguments: Mapping[str, Any]) -> list[Effect]:
        given = ((key, arguments.get(key)) for key in ("user_id", "connection", "channel"))
        wanted = {key: value for key, value in given if value is not None}
        if not wanted:
            return []  # a command without criteria must not close every stream
        return self.close_streams(
            self.find(**wanted), "disconnected", reconnect=bool(arguments.get("reconnect"))
        )

    # -- channels that clients and the app join and leave ----------------------------------------------------

    def _change_channels(self, arguments: Mapping[str, Any]) -> list[Effect]:
        effects: list[Effect] = []
        for stream in self.find(connection=arguments["connection"]):
            if stream.encoder is not None:  # its format has no word for other channels
                continue
            asked, join = arguments.get("asked"), list(arguments["join"])
            revoked = self._revoked_since(stream, asked, join)
            if revoked is None:
                effects += self.close_streams([stream], "recheck", reconnect=True)
                continue
            change = ChannelChange(
                stream,
                [name for name in join if name not in revoked],
                arguments["leave"],
                start_of_change(arguments),
                tab_of(arguments["connection"]),
                vouched=asked is None,
                notice=forbidden_frames(revoked),
            )
            self._state.channel_changes.add(change)
        return effects

    def _revoked_since(self, stream: Stream, asked: str | None, join: Sequence[str]) -> list[str] | None:
        """Returns the channels of `join` that the user lost after the app was asked about them.

        Returns None if this worker does not know what was revoked since then.

        :param asked: a cursor from before the app said that the stream may join; None if the app itself made
            the stream join.
        """
        if asked is None or stream.user_id is None or not join:
            return []
        missed = self._revocations.since_position(*whose(stream), asked)
        if missed is None:
            return None
        gone = {revocation.channel for revocation in missed}
        return [name for name in join if name in gone or None in gone]


def forbidden_frames(channels: Iterable[str]) -> bytes:
    """Returns the frames of `sse.error` events with code 1201, one for each channel that a stream loses."""
    return b"".join(
        error_frame(
            ErrorCode.PERMISSION_DENIED, f"listening to {name!r} is not allowed any more", {"channel": name}
        )
        for name in channels
    )
