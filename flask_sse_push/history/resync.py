"""Channels that must be read again completely, but have more events than one history call may read.

Such a channel is read in pages, from the oldest missed event on. The dispatch of the shard waits for it.
"""

from __future__ import annotations

from ..brokers.base import ChannelHistory
from ..protocol.entry import Entry
from .fetcher import HistoryReply
from .page import PageRequest, cost_of
from .pending_reads import PendingReads
from .read_queue import HistoryRequest
from .room import Share


class _Channel:
    """The pages of one channel that were read so far."""

    def __init__(self, request: HistoryRequest) -> None:
        self.request = request
        self.after = self.start = request.least
        self.entries: list[Entry] = []
        self.size = 0
        self.shares: list[Share] = []
        self.is_cut = False


class Resyncs:
    """The channels of a shard that are read in pages. The caller holds the hub's lock.

    Their events take a share of the worker's room for missed events, so streams that catch up get less of it.

    :param hold: at most how many bytes of one channel's events are collected. If the channel has more,
        its oldest events count as lost.
    """

    def __init__(self, reads: PendingReads, hold: int) -> None:
        self._reads = reads
        self._hold = hold
        self._channels: dict[str, _Channel] = {}
        self._shares: list[Share] = []  # of channels whose pages were all read since the last `release`

    def begin(self, name: str, request: HistoryRequest) -> None:
        """Requests the first page of a channel."""
        channel = self._channels[name] = _Channel(request)
        self._reads.request_page(PageRequest({name: channel.after}, is_resync=True))

    def add(self, reply: HistoryReply, request: PageRequest) -> HistoryReply | None:
        """Adds a page. Returns a reply with all events of the channel when the last page has come.

        Returns None if pages are missing, or if the channel does not need them any more.
        """
        (name,) = request.after
        channel, history = self._channels.get(name), reply.history
        if channel is None or self._reads.joining.get(name) is not channel.request:
            self._channels.pop(name, None)
            return None
        if reply.after[name] != channel.after:  # the page belongs to an earlier `begin`
            return None
        found = history.channels[name]
        cost = cost_of(found.entries)
        is_full = channel.size + cost > self._hold
        if is_full or found.start > channel.after:
            channel.entries, channel.size, channel.start = [], 0, max(found.start, channel.after)
            channel.shares.clear()
            channel.is_cut = is_full  # the broker has the dropped entries, for streams that read pages
        channel.entries += found.entries
        channel.size += cost
        if reply.share is not None:
            reply.share.resize(cost)
            channel.shares.append(reply.share)
        channel.after = min(history.until, history.last)
        if channel.after < history.last:
            self._reads.request_page(PageRequest({name: channel.after}, is_resync=True))
            return None
        del self._channels[name]
        self._shares += channel.shares
        whole = ChannelHistory(channel.start, channel.entries, found.head, channel.is_cut)
        return reply._replace(
            requests={name: [channel.request]},
            after={name: channel.request.least},
            history=history._replace(channels={name: whole}),
        )

    def release(self) -> None:
        """Gives the room of complete channels back. Called when no dispatch waits for their events."""
        self._shares.clear()
