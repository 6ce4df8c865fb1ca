"""Which channels of a shard are still to be read from the broker, and the replies that cannot be used yet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from .fetcher import HistoryFetcher, HistoryReply, HistoryRequest


class PendingReads:
    """The requests of a history cache. The caller holds the hub's lock.

    A channel is `joining` from the time it is wanted until its cache goes live. It is read after the link has
    confirmed it: a read before that would leave a hole between the two.
    """

    def __init__(self, fetcher: HistoryFetcher) -> None:
        self._fetcher = fetcher
        self.joining: dict[str, HistoryRequest] = {}
        self.resyncing: set[str] = set()  # joining channels that streams follow already
        self.replies: list[HistoryReply] = []  # replies that the link has not caught up with
        self._confirmed: set[str] = set()  # channels that the current link has confirmed

    def join(self, name: str, after: int) -> None:
        """Adds a channel, whose history after `after` is read as soon as the link has confirmed it."""
        self.joining[name] = HistoryRequest(after)

    def forget(self, name: str) -> None:
        """Removes a channel."""
        self.joining.pop(name, None)
        self.resyncing.discard(name)
        self._confirmed.discard(name)

    def confirm(self, name: str) -> bool:
        """Notes that the link has confirmed a channel, and reads the channel if it is joining.

        :returns: False if the link had confirmed it before. Then it may have been unsubscribed in between,
            and events may be missing.
        """
        if name in self._confirmed:
            return False
        self._confirmed.add(name)
        if name in self.joining:
            self._submit(name)
        return True

    def request(self, name: str, request: HistoryRequest) -> None:
        """Reads a channel. If it is joining, its own read serves the request."""
        joining = self.joining.get(name)
        if joining is None:
            self._fetcher.submit(name, request)
        elif joining is not request:
            joining.merge(request)

    def is_void(self, reply: HistoryReply) -> bool:
        """Whether a reply belongs to a call from before the last `restart`."""
        return reply.generation != self._fetcher.generation

    def restart(self, names: Iterable[str], position: int, *, link_up: bool) -> None:
        """Makes all replies and calls under way void, and reads the channels again from `position` on.

        :param link_up: whether to read now. Otherwise a channel is read when the new link has confirmed it.
        """
        self._fetcher.generation += 1
        void, self.replies = self.replies, []
        for name in names:
            if name not in self.joining:
                self.join(name, position)
                self.resyncing.add(name)
        for reply in void:
            self.request_again(reply.requests)
        if not link_up:
            self.request_again(self._fetcher.withdraw())
            self._confirmed.clear()
            for request in self.joining.values():
                request.confirmed = False
        for name in self.joining:
            if name in self._confirmed:
                self._submit(name)

    def request_again(self, requests: Mapping[str, list[HistoryRequest]]) -> None:
        """Repeats the requests of a void reply."""
        for name, several in requests.items():
            for request in several:
                self.request(name, request)

    def usable(self, epoch: str | None, heard: int) -> Iterator[HistoryReply]:
        """Yields the replies that the link has caught up with: what it brings from now on is newer.

        :param epoch: the epoch of the newest message on the link.
        :param heard: the highest id on the link.
        """
        waiting, self.replies = self.replies, []
        for reply in waiting:
            if self.is_void(reply):
                self.request_again(reply.requests)
            elif reply.history.epoch == epoch and reply.history.last <= heard:
                yield reply
            else:
                self.replies.append(reply)

    def _submit(self, name: str) -> None:
        request = self.joining[name]
        request.confirmed = True
        self._fetcher.submit(name, request)
