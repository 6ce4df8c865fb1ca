"""Decides which messages of the link and which replies of the broker count.

Anyone who may publish on the server can forge messages. Nobody can forge the reply to a call.
"""

from __future__ import annotations

import logging
import time
from abc import abstractmethod

from ..brokers.base import Echo
from ..config import ChannelPolicies
from ..protocol.channel import BROADCAST
from ..protocol.entry import Entry
from .channel_cache import NOW, ChannelCache
from .channel_caches import ChannelCaches
from .checks import Checks
from .fetcher import HistoryReply
from .link import Heard
from .pending_reads import PendingReads
from .position import Gap
from .read_queue import HistoryRequest

logger = logging.getLogger(__name__)


class TrustedCaches(ChannelCaches):
    """The channel caches of one shard, and what the worker believes of the messages that arrive for them."""

    def __init__(self, reads: PendingReads, policies: ChannelPolicies, keep_bytes: int, hold: int) -> None:
        super().__init__(reads, policies, keep_bytes, hold)
        self._epoch: str | None = None
        self._position = 0  # the position up to which every event was dispatched
        self._lost: dict[str, Gap] = {}
        self._checks = Checks()
        self._heard = Heard()
        self._distrusted = False  # whether a forged id was believed, so that positions are wrong
        self._clock_ahead = 0.0  # the broker's clock minus the monotonic clock, in microseconds
        self._asked = False  # whether a probe was requested because of a message of an unknown epoch

    def clock(self) -> float:
        return time.monotonic() * 1e6 + self._clock_ahead

    @abstractmethod
    def _pause(self, *, link_up: bool) -> None:
        """Pauses delivery until all channels were read again from the broker.

        :param link_up: whether to read the channels now. If False, each channel is read when the new link has
            confirmed its subscription.
        """

    def _note_lost(self, gap: Gap) -> None:
        known = self._lost.get(gap.channel, gap)
        self._lost[gap.channel] = Gap(gap.channel, min(known.until, gap.until), max(known.after, gap.after))

    def _take_unproven(self, entry: Entry) -> None:
        """Handles an event whose proof the link could not check: no reply had named the event's epoch yet."""
        if entry.epoch == self._heard.epoch:  # a reply has come in the meantime
            self._pause(link_up=True)
        else:
            self._ask_epoch()

    def _ask_epoch(self) -> None:
        """Requests a probe after a message of an unknown epoch: perhaps a new epoch has begun."""
        if not self._asked:
            self._asked = True
            self.reads.request(BROADCAST, HistoryRequest(NOW, is_join=True))

    def _doubt(self, name: str, cache: ChannelCache, entry: Entry) -> None:
        """Handles an event that the broker cannot have published now: a message was forged."""
        if entry.epoch != self._heard.epoch:
            self._ask_epoch()
        elif not cache.live:
            cache.tail.append(entry)
        elif entry.id > self._heard.id:
            if self._checks.doubt(name, entry.id):  # perhaps the clock was set forward
                self._pause(link_up=True)
        elif entry.id > cache.floor and not cache.between(entry.id - 1, entry.id):
            self._checks.refuse(name, ValueError(f"the id {entry.id} came after the id {self._heard.id}"))
            self._note_lost(Gap(name, min(cache.head, entry.id - 1), self._position))

    def _check_tail(self, name: str, cache: ChannelCache) -> bool:
        """Drops the waiting entries that the broker cannot have published, and notes the others.

        The others go to the channel cache without a dispatch. So the worker's position must not stay behind
        an entry that came before the first reply, when nothing told which ids are right: a stream that joined
        its group at an earlier position would never get the entry.

        :returns: whether all channels are read again because of them.
        """
        for entry in [entry for entry in cache.tail if not self._heard.believes(entry.id)]:
            cache.tail.remove(entry)
            if self._checks.doubt(name, entry.id):
                self._pause(link_up=True)
                return True
        for entry in cache.tail:
            self._heard.note_event(entry)
        return False

    def _distrust(self) -> None:
        """Begins anew after a forged id was believed: all streams get a reset."""
        logger.error("a message with a forged id has arrived; all streams get a reset")
        self._distrusted = True
        self._heard.begin(self._heard.epoch)
        self._pause(link_up=True)

    def _note_reply(self, reply: HistoryReply) -> None:
        """Notes the epoch and the position of a reply. The reply is used when the link has reached them."""
        asked, self._asked = self._asked, False
        self._clock_ahead = reply.history.clock - reply.sent_at * 1e6
        epoch, last = reply.history.epoch, reply.history.last
        if epoch != self._heard.epoch:
            known = {self._epoch, self._heard.epoch} - {None, epoch}
            self._heard.begin(epoch)
            # Replies to calls made before now may belong to the earlier epoch, and messages of the new epoch
            # were dropped.
            if known or asked:
                self._pause(link_up=True)
        if not self._heard.note_reply(Echo(epoch, last), reply.sent_at):
            self._distrust()
        if self._checks.judge(self._heard.believes, reply.sent_at):
            self._pause(link_up=True)
        self.reads.replies.append(reply)
