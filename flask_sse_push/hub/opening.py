"""Opens a stream: sends `sse.open` and the events that the stream missed, then adds it to its group."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from ..history.chunk import MissedChunk
from ..history.page import cost_of
from ..history.position import Opening, Reset
from ..history.recovery_driver import Recovery, Step
from ..protocol.frames import PLAIN, heartbeat_frame, jittered_ms, open_frame, reset_frame
from .batches import BatchPolicy
from .disconnect import Disconnector
from .encoder import HEARTBEAT
from .group import frames_for
from .pace import Pace
from .state import HubState
from .stream import Stream

#: A stream that got more bytes of missed events than this rests between its chunks, so that the worker has
#: time for everything else.
MUCH = 65_536


class StreamOpener:
    """Sends new streams the events that they missed, then adds the streams to their groups.

    Each stream's own thread calls `follow`.
    """

    def __init__(self, state: HubState, batching: BatchPolicy, disconnector: Disconnector) -> None:
        self._state = state
        self._batching = batching
        self._pace = Pace()
        #: The connection ids of the streams that missed more than one chunk and are in no group yet.
        self.behind: set[str] = set()
        self._disconnector = disconnector

    def follow(self, stream: Stream, recovery: Recovery, timeout: float) -> bytes | None:
        """Returns the next frames with events that a stream missed. Blocks. Call it until it returns None.

        :returns: None when the stream has every missed event and is in its group; b"" if the broker did not
            answer within `timeout` seconds, or if the stream is closing.
        """
        if stream.bytes > MUCH:
            self._pace.rest(MUCH)
        deadline = time.monotonic() + timeout
        while True:
            with self._state.lock:
                if stream.closing:
                    break
                may_begin = stream.grant is None or self._may_begin(recovery)
                step = recovery.next() if may_begin else None
                frames = None if step is None else self._send(stream, recovery, step)
            if step is not None:
                if step.resets:
                    self._state.listeners.tell_lost(stream)
                if frames != b"":
                    return frames
                continue
            self._state.shards.poke()
            if not recovery.wait(deadline - time.monotonic()):
                return b""
        recovery.wait(deadline - time.monotonic())
        return b""

    def _may_begin(self, recovery: Recovery) -> bool:
        """Whether a stream whose rights may be revoked may get events now.

        Such a stream waits until this worker has handled all revocations from before it heard commands.
        The recovery's `wait` ends when the stream may be able to begin.
        """
        if self._disconnector.hears_commands:
            return True
        self._state.shards.all[0].history_cache.waiters.add(recovery.waiter())
        return False

    def _send(self, stream: Stream, recovery: Recovery, step: Step) -> bytes | None:
        frames = b""
        if step.opening is not None:
            frames = self._open_frame(stream, step.opening)
            stream.began = step.began or 0
        if recovery.gaps:
            self._state.channel_changes.note_gaps(stream, recovery.gaps)
        if step.resets:
            frames += self._reset_frames(stream, step.resets)
            stream.began = stream.began if step.began is None else step.began
            stream.answered = True
        if step.chunk.entries:
            frames += self._frames(stream, step.chunk)
            self._count(stream, step.chunk, len(frames))
            if stream.bytes > MUCH:  # the stream has rested for a chunk of `MUCH` bytes
                self._pace.add(cost_of(step.chunk.entries) - MUCH)
            stream.answered = True
        joins = step.is_complete or not (step.chunk.entries or recovery.has_more())
        if stream.encoder is not None:
            frames += stream.encoder.caught_up() if joins else b""
            if stream.encoder.ended:
                frames, joins = frames or HEARTBEAT, False
                stream.complete(b"")
        if frames:
            stream.bytes += len(frames)
            if not step.is_complete:
                self.behind.add(stream.connection)
            if step.opening is None or not (step.is_complete and joins) or not stream.send_after_join(frames):
                return frames
        elif not joins:
            return b""
        # The lock was not released since the check for missed events, so no event was missed in between.
        stream.join()
        stream.written_at = self._state.clock()
        self._state.fanout.add(stream, stream.subscribed, recovery.positions)
        self.behind.discard(stream.connection)
        return None

    def _count(self, stream: Stream, chunk: MissedChunk, size: int) -> None:
        stream.events += len(chunk.entries)
        if chunk.limited:
            stream.events -= sum(stream.is_excluded(entry.exclude) for entry in chunk.entries)
        self._state.counters.replayed(len(chunk.entries), size)

    def _frames(self, stream: Stream, chunk: MissedChunk) -> bytes:
        """Returns the frames of a chunk for a stream. Streams with the same format share the bytes."""
        if stream.encoder is not None:
            return stream.encoder.encode(chunk.entries)
        batched = self._batching.waits(stream.subscribed, stream.batch_wait) is not None
        if chunk.limited:
            return frames_for(stream, chunk.entries, batched=batched)
        key = batched, stream.subscribed if stream.tagged else None
        frames = chunk.frames.get(key)
        if frames is None:
            frames = chunk.frames[key] = frames_for(stream, chunk.entries, batched=batched)
        return frames

    @staticmethod
    def _reset_frames(stream: Stream, resets: Sequence[Reset]) -> bytes:
        if stream.encoder is not None:
            return b"".join([stream.encoder.lose(reset.channels) for reset in resets])
        return b"".join([reset_frame(*reset, dialect=stream.dialect) for reset in resets])

    def _open_frame(self, stream: Stream, opening: Opening) -> bytes:
        if stream.encoder is not None:
            return stream.encoder.opening()
        secret, stream.secret = stream.secret, None  # the secret is sent only once, so it is not kept
        if stream.dialect == PLAIN:
            return heartbeat_frame(opening.cursor, dialect=stream.dialect)
        # With several shards there are several clocks.
        shards, settings = self._state.shards.all, self._state.settings
        wanted = self._state.counters.measure_at < math.inf or settings.trace > 0
        offset = shards[0].history_cache.broker_clock.offset if wanted and len(shards) == 1 else None
        return open_frame(
            opening.cursor,
            stream.connection,
            stream.channels,
            resumed=opening.resumed,
            heartbeat=settings.heartbeat if stream.poll is None else stream.poll,
            secret=secret,
            retry_ms=jittered_ms(settings.retry),
            user=stream.user_id,
            tells_user=stream.tagged,
            time_ms=None if offset is None else round((time.monotonic() + offset) * 1000),
        )
