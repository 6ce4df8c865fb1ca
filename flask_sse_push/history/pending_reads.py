"""The channels of a shard whose history must still be read, and the replies that cannot be used yet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from .fetcher import HistoryFetcher, HistoryReply
from .page import PageRequest
from .read_queue import HistoryRequest


class PendingReads:
    """The unanswered requests of a history cache. The caller holds the hub's lock.

    A channel is `joining` until its history was read and its cache can take live events. The history is read
    only after the link has confirmed its subscription to the channel. If it were read earlier, events between
    the read and the subscription would be missing.
    """

    def __init__(self, fetcher: HistoryFetcher) -> None:
        self._fetcher = fetcher
        self.joining: dict[str, HistoryRequest] = {}
        self.resyncing: set[str] = set()  # joining channels that a `restart` reads again
        self.replies: list[HistoryReply] = []  # replies that are newer than the last message on the link
        self._confirmed: set[str] = set()  # channels whose subscription the current link has confirmed

    def join(self, name: str, after: int) -> None:
        """Adds a channel. Its history after `after` is read when the link has confirmed its subscription."""
        self.joining[name] = HistoryRequest(after, is_join=True)

    def forget(self, name: str) -> None:
        """Removes a channel that no stream uses."""
        self.joining.pop(name, None)
        self.resyncing.discard(name)
        self._confirmed.discard(name)

    def confirm(self, name: str) -> bool:
        """Notes that the link has confirmed its subscription to a channel.

        If the channel is joining, its history is now requested.

        :returns: False if the link had confirmed the channel before. The channel may have been unsubscribed
            in between, so events may be missing.
        """
        if name in self._confirmed:
            return False
        self._confirmed.add(name)
        if name in self.joining:
            self._submit(name)
        return True

    def request(self, name: str, request: HistoryRequest) -> None:
        """Queues a request for a channel's history, or merges it into a joining channel's own request."""
        joining = self.joining.get(name)
        if joining is None:
            self._fetcher.submit(name, request)
        elif joining is not request:
            if name in self.resyncing:  # a channel that holds the dispatch is read no further than necessary
                joining.waiters |= request.waiters
            else:
                joining.merge(request)

    def request_page(self, request: PageRequest) -> PageRequest:
        """Queues a request for a page. Returns the request that will have the page."""
        return self._fetcher.submit_page(request)

    def is_outdated(self, reply: HistoryReply) -> bool:
        """Whether a reply belongs to a history call that began before the last `restart`."""
        return reply.generation != self._fetcher.generation

    def restart(self, names: Iterable[str], position: int, *, link_up: bool) -> None:
        """Reads the channels again from `position` on. Replies to earlier history calls are not used.

        :param link_up: whether to read the channels now. If False, each channel is read when the new link has
            confirmed its subscription.
        """
        self._fetcher.generation += 1
        outdated, self.replies = self.replies, []
        for name in names:
            if name not in self.joining:
                self.join(name, position)
                self.resyncing.add(name)
        for reply in outdated:
            self.request_again(reply)
        if not link_up:
            self._request_all(self._fetcher.queue.withdraw())
            self._confirmed.clear()
            for request in self.joining.values():
                request.confirmed = False
        for name in self.joining:
            if name in self._confirmed:
                self._submit(name)

    def request_again(self, reply: HistoryReply) -> None:
        """Queues the requests of an outdated reply again."""
        self._request_all(reply.requests)
        if reply.page is not None and not reply.page.is_resync:  # `restart` reads the channels itself
            self._fetcher.submit_page(reply.page, again=True)

    def _request_all(self, requests: Mapping[str, list[HistoryRequest]]) -> None:
        for name, several in requests.items():
            for request in several:
                self.request(name, request)

    def usable(self, epoch: str | None, heard: int) -> Iterator[HistoryReply]:
        """Yields the replies whose position the link has reached: all later live events are newer than these.

        :param epoch: the epoch of the newest message on the link.
        :param heard: the position up to which every event has arrived over the link, on each of its channels.
        """
        waiting, self.replies = self.replies, []
        for reply in waiting:
            if self.is_outdated(reply):
                self.request_again(reply)
            elif reply.history.epoch == epoch and reply.history.last <= heard:
                yield reply
            else:
                self.replies.append(reply)

    def _submit(self, name: str) -> None:
        request = self.joining[name]
        request.confirmed = True
        self._fetcher.submit(name, request)
