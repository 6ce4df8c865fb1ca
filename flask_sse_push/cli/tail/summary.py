"""What was seen so far: counts, the rate, the last events, how the stream stands. Pure; times are given."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from .news import Beat, Came, Lost, Missed, News, Opened

#: Seconds over which the rate is taken.
WINDOW = 10
#: Events and remarks remembered.
RECENT, REMARKS = 100, 5
#: Heartbeats that may fail to come before a stream counts as dead.
BEATS_MISSED = 2.5


class Seen(NamedTuple):
    """An event, and the wall clock's time when it came, in seconds since the epoch."""

    event: Came
    at: float


class Summary:
    """Takes the news in order. All times but `Seen.at` are monotonic seconds.

    :param now: the beginning.
    """

    def __init__(self, now: float) -> None:
        self.began = now
        self.events = 0
        self.bytes = 0  # of their data
        self.reconnects = 0
        self.resets = 0
        self.channels: tuple[str, ...] = ()
        self.cursor = ""
        self.state = "connecting"
        self.ended: str | None = None  # why, once it has ended for good
        self.recent: deque[Seen] = deque(maxlen=RECENT)
        self.remarks: deque[str] = deque(maxlen=REMARKS)
        self._heartbeat: float | None = None
        self._heard_at: float | None = None
        self._beat_at: float | None = None
        self._lost_at: float | None = None
        self._counts: deque[list[int]] = deque(maxlen=WINDOW + 1)  # [whole second, events]

    def note(self, news: News, now: float, clock: float) -> str | None:
        """Takes one piece of news in; returns a remark, when there is something to be said of the stream.

        :param clock: the wall clock, in seconds since the epoch.
        """
        self._heard_at = now
        remark = self._take(news, now, clock)
        if remark is not None:
            self.remarks.append(remark)
        return remark

    def _take(self, news: News, now: float, clock: float) -> str | None:
        if isinstance(news, Came):
            self._count(news, now, clock)
        elif isinstance(news, Beat):
            self._beat_at = now
        elif isinstance(news, Opened):
            return self._opened(news, now)
        elif isinstance(news, Missed):
            self.resets += 1
            return f"events were lost for good: {news.reason}"
        elif isinstance(news, Lost):
            return self._lost(news, now)
        else:
            self.state, self.ended = "ended", news.why
            return news.why
        return None

    def _count(self, event: Came, now: float, clock: float) -> None:
        self.cursor = event.id or self.cursor
        if event.is_control:
            return
        self.events += 1
        self.bytes += len(event.data.encode())
        self.recent.append(Seen(event, clock))
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

    def _lost(self, news: Lost, now: float) -> str:
        self.state = "reconnecting"
        if self._lost_at is None:
            self._lost_at = now
            self.reconnects += 1
        return f"lost: {news.why}; trying again" + (f" in {news.pause:.1f} s" if news.pause else "")

    def rate(self, now: float) -> float:
        """Events a second, over the last WINDOW seconds."""
        recent = sum(count for second, count in self._counts if second > now - WINDOW)
        return recent / min(WINDOW, max(1.0, now - self.began))

    def beat_age(self, now: float) -> float | None:
        """Seconds since the last heartbeat; None before the first."""
        return None if self._beat_at is None else now - self._beat_at

    def silence(self, now: float) -> float | None:
        """Seconds without any sign of an open stream, when they are too many for its heartbeat."""
        if self.state != "open" or self._heartbeat is None or self._heard_at is None:
            return None
        silent = now - self._heard_at
        return silent if silent > BEATS_MISSED * self._heartbeat else None

    def summary(self, now: float) -> str:
        """All in one line, for the end."""
        seconds = now - self.began
        mean = self.events / seconds if seconds else 0.0
        text = f"{self.events} events ({self.bytes} bytes) in {seconds:.1f} s, {mean:.1f}/s; "
        text += f"{self.reconnects} reconnects, {self.resets} resets"
        return text + (f"; last cursor {self.cursor}" if self.cursor else "")
