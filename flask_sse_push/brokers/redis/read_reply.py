"""Reads the replies of history.lua and page.lua."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ...protocol.cursor import MAX_ID, Cursor
from ..base import ChannelHistory, History, channel_history
from .entries import StoredEntries, parse_entries, parse_lineage

#: Called with a channel and a description of data in the channel's list that another program has written.
OnForeign = Callable[[str, str], None]


class ReadReply:
    """The reply of one of the two scripts.

    `foreign` has the keys with data of other programs, `refusal` is the error if the server takes no writes.
    `secret` is the secret of the epoch, for `Proofs`.
    """

    def __init__(self, reply: list[Any]) -> None:
        epoch, last, horizon, lineage, clock, refusal, self.foreign, until, secret, *self._channels = reply
        self.epoch: bytes = epoch
        self.secret: bytes = secret
        self._now = Cursor(epoch.decode(), int(last))
        self._horizon, self._until, self._clock = int(horizon), int(until), int(clock)
        self._lineage = parse_lineage(lineage)
        self.refusal = refusal.decode("utf-8", "replace")

    def history(self, after: Mapping[str, int], on_foreign: OnForeign) -> History:
        """Returns the histories of the channels in `after`."""
        channels = {}
        for name, head, found, is_cut in self._found(after, on_foreign):
            channels[name] = self._channel(after[name], head, found, is_cut=is_cut)
        return History(self._now.epoch, self._now.id, channels, self._lineage, clock=self._clock)

    def page(self, after: Mapping[str, int], on_foreign: OnForeign) -> History:
        """Returns a page of the events of the channels in `after`."""
        channels = {}
        for name, head, found, is_whole in self._found(after, on_foreign):
            end = MAX_ID if is_whole else self._until
            channels[name] = self._channel(after[name], head, found, until=end)
        return History(self._now.epoch, self._now.id, channels, self._lineage, self._until, self._clock)

    def _channel(self, after: int, head: int, found: StoredEntries, **options: Any) -> ChannelHistory:
        return channel_history(after, found.entries, head, self._horizon, found.unread, **options)

    def _found(
        self, after: Mapping[str, int], on_foreign: OnForeign
    ) -> Iterator[tuple[str, int, StoredEntries, bool]]:
        """Yields for each channel its name, head, entries, and the third value that the script returned."""
        fields = self._channels
        for name, head, items, flag in zip(after, fields[::3], fields[1::3], fields[2::3], strict=True):
            found = parse_entries(name, items, self._now, self._lineage)
            if found.problem:
                on_foreign(name, found.problem)
            yield name, int(head), found, flag == b"1"
