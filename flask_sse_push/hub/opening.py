"""From a new stream to a member of its group: `sse.open`, the events it missed, then the join."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from ..history.position import Opening, StartPoint
from ..history.recovery import Recovery, recovery_for
from ..history.shard_recovery import ChunkCache, MissedChunk
from ..history.shards import Shards
from ..protocol.frames import open_frame, reset_frame
from .batches import BatchPolicy
from .channel_changes import ChannelChanges
from .counters import Counters
from .fanout import Fanout
from .group import frames_for
from .listener import StreamListener
from .stream import Stream


class StreamOpener:
    """Brings the new streams of one worker to the live position. Called by the streams' own threads.

    :param lock: the hub's lock. The look for missed events and the join are one step under it.
    :param clock: returns monotonic seconds.
    :param heartbeat: seconds between heartbeats, named in `sse.open`.
    """

    def __init__(
        self,
        shards: Shards,
        fanout: Fanout,
        channel_changes: ChannelChanges,
        batching: BatchPolicy,
        listener: StreamListener,
        counters: Counters,
        *,
        lock: threading.Lock,
        clock: Callable[[], float],
        heartbeat: float,
    ) -> None:
        self._shards = shards
        self._fanout = fanout
        self._channel_changes = channel_changes
        self._batching = batching
        self._listener = listener
        self._counters = counters
        self._lock = lock
        self._clock = clock
        self._heartbeat = heartbeat
        self._chunk_cache = ChunkCache()

    def recovery(self, channels: tuple[str, ...], start: StartPoint) -> Recovery:
        """The recovery of a stream of `channels` that begins at `start`; for `follow`."""
        return recovery_for(self._shards.placement(channels), start)

    def follow(self, stream: Stream, recovery: Recovery, timeout: float) -> bytes | None:
        """The next frames that the stream missed; None once the stream has joined its group and has them all.

        :returns: b"" when the broker did not answer within `timeout` seconds, and when the stream is ending.
        """
        deadline = time.monotonic() + timeout
        while True:
            with self._lock:
                if stream.dismissed:
                    break
                if recovery.is_served():
                    self._join(stream, recovery)
                    return None
                if not recovery.blocks():
                    return self._advance(stream, recovery)
            recovery.poke()
            if not recovery.wait(deadline - time.monotonic()):
                return b""
        recovery.wait(deadline - time.monotonic())
        return b""

    def _advance(self, stream: Stream, recovery: Recovery) -> bytes | None:
        notices = b""
        opening, resets = recovery.step()
        if opening is not None:
            stream.began = recovery.began
            notices = self._open_frame(stream, opening)
        if recovery.account is not None and recovery.account.gaps:
            self._channel_changes.note_gaps(stream, recovery.account)
        for reset in resets:
            stream.began = recovery.began if reset.cursor else stream.began
            notices += reset_frame(*reset)
        if resets:
            self._listener.lost(stream)
        chunk = recovery.take(self._chunk_cache)
        missed = notices + self._frames(stream, chunk)
        if not missed:
            self._join(stream, recovery)
            return None
        if chunk.entries:
            self._counters.replayed(len(chunk.entries), len(missed))
        stream.events += len(chunk.entries)
        if chunk.limited:
            stream.events -= sum(stream.is_excluded(entry.exclude) for entry in chunk.entries)
        stream.bytes += len(missed)
        if opening is not None and recovery.is_served() and stream.carry(missed):
            self._join(stream, recovery)
            return None
        return missed

    def _frames(self, stream: Stream, chunk: MissedChunk) -> bytes:
        """The frames of a chunk; put together once for all streams that get the same bytes."""
        if not chunk.entries:
            return b""
        batched = self._batching.waits(stream.subscribed, stream.wait) is not None
        if chunk.limited:
            return frames_for(stream, chunk.entries, batched=batched)
        key = batched, stream.subscribed if stream.tagged else None
        frames = chunk.frames.get(key)
        if frames is None:
            frames = chunk.frames[key] = frames_for(stream, chunk.entries, batched=batched)
        return frames

    def _open_frame(self, stream: Stream, opening: Opening) -> bytes:
        secret, stream.secret = stream.secret, None  # sent once: not kept for each stream
        return open_frame(
            opening.cursor,
            stream.connection,
            stream.channels,
            resumed=opening.resumed,
            heartbeat=self._heartbeat,
            secret=secret,
        )

    def _join(self, stream: Stream, recovery: Recovery) -> None:
        stream.join()
        stream.touched = self._clock()
        self._fanout.enlist(stream, stream.subscribed, recovery.at)
