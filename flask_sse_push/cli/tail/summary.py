"""Sums up the news of a stream: counts, rate, newest events, state. Pure; callers pass the time."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from .news import Disconnected, Heartbeat, Missed, News, Opened, Received

#: The rate is computed over this many seconds.
WINDOW = 10
#: The first number: how many of the newest events are kept. The second: how many of the newest remarks.
RECENT, REMARKS = 100, 5
#: A stream is considered dead if nothing has arrived for this many times the heartbeat interval.
BEATS_MISSED = 2.5


class Seen(NamedTuple):
    """An event, and the Unix time in seconds when it was published; if that is unknown, when it arrived."""

    event: Received
    at: float


class Summary:
    """Sums up the news of a stream. `note` must get the news in the order of arrival.

    All times are monotonic seconds, except `Seen.at`.

    :param now: the time when the command started.
    """

    def __init__(self, now: float) -> None:
        self.started = now
        self.events = 0
        self.bytes = 0  # how many bytes the data of the events had
        self.reconnects = 0
        self.resets = 0
        self.channels: tuple[str, ...] = ()
        self.cursor = ""
        self.state = "connecting"
        self.ended: str | None = None  # the reason, once the stream has ended for good
        self.recent: deque[Seen] = deque(maxlen=RECENT)
        self.remarks: deque[str] = deque(maxlen=REMARKS)
        self._heartbeat: float | None = None
        self._heard_at: float | None = None
        self._beat_at: float | None = None
        self._lost_at: float | None = None
        self._counts: deque[list[int]] = deque(maxlen=WINDOW + 1)  # [second, events in it]

    def note(self, news: News, now: float, clock: float) -> str | None:
        """Adds one piece of news. Returns a remark for the user if the state of the stream has changed.

        :param now: monotonic seconds.
        :param clock: Unix time in seconds.
        """
        self._heard_at = now
        remark = self._take(news, now, clock)
        if remark is not None:
            self.remarks.append(remark)
        return remark

    def _take(self, news: News, now: float, clock: float) -> str | None:
        if isinstance(news, Received):
            self._count(news, now, clock)
        elif isinstance(news, Heartbeat):
            self._beat_at = now
        elif isinstance(news, Opened):
            return self._opened(news, now)
        elif isinstance(news, Missed):
            self.resets += 1
            return f"events were lost for good: {news.reason}"
        elif isinstance(news, Disconnected):
            return self._lost(news, now)
        else:
            self.state, self.ended = "ended", news.why
            return news.why
        return None

    def _count(self, event: Received, now: float, clock: float) -> None:
        self.cursor = event.id or self.cursor
        if event.is_control:
            return
        self.events += 1
        self.bytes += len(event.data.encode(errors="surrogatepass"))
        self.recent.append(Seen(event, clock if event.published is None else event.published))
        second = int(now)
        if not self._counts or self._counts[-1][0] != second:
            self._counts.append([second, 0])
        self._counts[-1][1] += 1

    def _opened(self, news: Opened, now: float) -> str:
        self.state, self.channels = "open", news.channels or self.channels
        self._heartbeat = news.heartbeat
        names = ", ".join(self.channels)
        if self._lost_at is None:
            return f"open{': ' if names else ''}{names}" + (", resumed" if news.resumed else "")
        away, self._lost_at = now - self._lost_at, None
        how = "resumed, nothing missed" if news.resumed else "not resumed"
        return f"open again after {away:.1f} s: {how}"

    def _lost(self, news: Disconnected, now: float) -> str:
        self.state = "reconnecting"
        if self._lost_at is None:
            self._lost_at = now
            self.reconnects += 1
        return f"lost: {news.why}; trying again" + (f" in {news.pause:.1f} s" if news.pause else "")

    def rate(self, now: float) -> float:
        """Returns the events per second over the last WINDOW seconds."""
        recent = sum(count for second, count in self._counts if second > now - WINDOW)
        return recent / min(WINDOW, max(1.0, now - self.started))

    def beat_age(self, now: float) -> float | None:
        """Returns the seconds since the last heartbeat; None before the first heartbeat."""
        return None if self._beat_at is None else now - self._beat_at

    def silence(self, now: float) -> float | None:
        """Returns for how many seconds the stream was silent if it is considered dead; otherwise None."""
        if self.state != "open" or self._heartbeat is None or self._heard_at is None:
            return None
        silent = now - self._heard_at
        return silent if silent > BEATS_MISSED * self._heartbeat else None

    def totals(self, now: float) -> str:
        """Returns one line with the totals, which the command prints at its end."""
        seconds = now - self.started
        mean = self.events / seconds if seconds else 0.0
        text = f"{self.events} events ({self.bytes} bytes) in {seconds:.1f} s, {mean:.1f}/s; "
        text += f"{self.reconnects} reconnects, {self.resets} resets"
        return text + (f"; last cursor {self.cursor}" if self.cursor else "")
