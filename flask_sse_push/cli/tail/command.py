"""`flask sse tail`: follows a source of events and prints its news."""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import ssl
import sys
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol
from urllib.parse import urlsplit

import click

from ...brokers.base import NO_INBOX
from ...history.link import LinkReader
from ...protocol.channel import checked_channel, shard_of
from ..common import (
    Push,
    errors_without_traceback,
    local_time,
    one_line,
    read_headers,
    say,
    shared_broker,
)
from ..time_limit import within
from ..tls import tls_context, tls_options
from .channel import ChannelSource
from .news import ANSWER_TIMEOUT, Ended, News, Received
from .summary import Summary

#: At most how many pieces of news wait for the terminal. When the queue is full, the source blocks.
MAX_WAITING = 1000
#: Seconds between two checks. A check finds out if the stream is silent for too long or the time is over.
TICK = 0.25


class Source(Protocol):
    """Follows a stream or channels. A separate thread calls `run`."""

    def run(self) -> None: ...

    def cut(self, why: str) -> None: ...

    def close(self) -> None: ...


class StopCondition:
    """Ends the command after `count` events or after `timeout` seconds. None means no such limit."""

    def __init__(self, count: int | None, timeout: float | None) -> None:
        self.count = count
        self._deadline = None if timeout is None else time.monotonic() + timeout

    def is_met(self, summary: Summary) -> bool:
        """Whether enough events have arrived."""
        return self.count is not None and summary.events >= self.count

    def left(self) -> float:
        """Returns the seconds until the next check, at most `TICK`; 0 when the time is over."""
        if self._deadline is None:
            return TICK
        return max(0.0, min(TICK, self._deadline - time.monotonic()))


def register(group: click.Group, push: Push) -> None:
    """Adds the command to `group`."""

    @group.command("tail")
    @click.argument("url", required=False)
    @click.option(
        "--channel", "channels", multiple=True, help="A channel, read from the broker. May be repeated."
    )
    @click.option(
        "--since", default="", metavar="CURSOR", help="Begin after this cursor; `earliest`: with all history."
    )
    @click.option(
        "--last", type=click.IntRange(0), default=0, help="Begin with this many of the newest events."
    )
    @click.option("--count", type=click.IntRange(1), help="End after this many events.")
    @click.option(
        "--timeout", type=click.FloatRange(min=0, min_open=True), help="End after this many seconds."
    )
    @click.option("--header", "headers", multiple=True, help="A header to send to URL: 'Cookie: session=…'.")
    @click.option("--token", envvar="SSE_TOKEN", help="A Bearer token to send to URL. Or set SSE_TOKEN.")
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object per event and line.")
    @click.option("--all", "everything", is_flag=True, help="Also print the protocol's events (sse.…).")
    @tls_options
    def tail(
        url: str | None,
        channels: tuple[str, ...],
        since: str,
        last: int,
        count: int | None,
        timeout: float | None,
        headers: tuple[str, ...],
        token: str | None,
        as_json: bool,
        everything: bool,
        cacert: str | None,
        insecure: bool,
    ) -> None:
        """Follow the stream at URL, or channels of the broker.

        Shows a live table in a terminal. In a pipe, prints one line for each event. Reconnects when the
        connection breaks, or when the server takes longer than 20 seconds to answer, and says whether events
        were lost. Exits with 1 if the stream ended for good, if the first answer did not come in time, or if
        --timeout was over before --count events had arrived. With --channel, each event has the local time
        when it was published; with a URL, the time when it arrived.

        \b
        Examples: flask sse tail https://app.example.com/stream?channels=news
                  flask sse tail --channel news --last 5
        """
        if (url is None) == (not channels):
            raise click.UsageError("give either a URL or --channel NAME")
        summary = Summary(time.monotonic())
        news: queue.Queue[News] = queue.Queue(MAX_WAITING)
        with errors_without_traceback():
            if url is not None:
                context = tls_context(cacert, insecure)
                source = _url_source(url, read_headers(headers), token, since, last, news, context)
            else:
                source = _channel_source(push, channels, since, last, news)
        on_screen = not as_json and sys.stdout.isatty()
        title = _title(url) if url is not None else ", ".join(channels)
        with _screen(title, summary) if on_screen else contextlib.nullcontext():
            lines = Lines(as_json=as_json, everything=everything, silent=on_screen)
            is_complete = follow(source, news, summary, StopCondition(count, timeout), lines)
        if on_screen and summary.ended is not None:
            say(one_line(summary.ended), err=True)
        say(summary.totals(time.monotonic()), err=True)
        if not is_complete:
            raise click.exceptions.Exit(1)


def follow(
    source: Source, news: queue.Queue[News], summary: Summary, stop: StopCondition, lines: Lines
) -> bool:
    """Runs the source and shows its news until `stop` is met, the source ends, or Ctrl-C is pressed. Blocks.

    Returns False if the source ended for good, or if the time was over before enough events had arrived.
    """
    threading.Thread(target=_run, args=(source, news), daemon=True).start()
    try:
        while not stop.is_met(summary):
            left = stop.left()
            if not left:
                return stop.count is None
            with contextlib.suppress(queue.Empty):
                item = news.get(timeout=left)
                lines.show(item, summary.note(item, time.monotonic(), time.time()))
                if isinstance(item, Ended):
                    return False
            silence = summary.silence(time.monotonic())
            if silence is not None:
                source.cut(f"nothing has arrived for {silence:.0f} s")
        return True
    except KeyboardInterrupt:
        return True
    finally:
        source.close()


def _run(source: Source, news: queue.Queue[News]) -> None:
    try:
        source.run()
    except Exception as error:  # otherwise the command would wait for ever
        news.put(Ended(f"following the stream failed: {type(error).__name__}: {error}"))


class Lines:
    """Prints events to the standard output, one per line, and remarks to the error output.

    :param everything: whether to print the protocol's own events (`sse.…`) too.
    :param silent: whether to print nothing, because a `Screen` shows the news.
    """

    def __init__(self, *, as_json: bool, everything: bool, silent: bool) -> None:
        self._as_json = as_json
        self._everything = everything
        self._silent = silent

    def show(self, news: News, remark: str | None) -> None:
        """Prints `news` if it is an event, and `remark` if there is one."""
        if self._silent:
            return
        if isinstance(news, Received) and (self._everything or not news.is_control):
            say(_as_json(news) if self._as_json else _as_line(news))
        if remark is not None:
            say(one_line(remark), err=True)


def _as_json(event: Received) -> str:
    received = datetime.now(UTC).isoformat(timespec="milliseconds")
    found: dict[str, Any] = {"id": event.id, "type": event.type, "data": event.data, "received": received}
    if event.channel:
        found["channel"] = event.channel
    if event.published is not None:
        found["published"] = local_time(event.published)
    return json.dumps(found)


def _as_line(event: Received) -> str:
    at = local_time(time.time() if event.published is None else event.published)
    parts = [at, *([event.channel] if event.channel else [])]
    return "  ".join(map(one_line, [*parts, event.type, event.data]))


def _url_source(
    url: str,
    headers: Mapping[str, str],
    token: str | None,
    since: str,
    last: int,
    news: queue.Queue[News],
    context: ssl.SSLContext,
) -> Source:
    try:
        from .url import URLSource, with_query
    except ImportError as error:
        raise _not_installed(error) from error
    bearer = {"Authorization": f"Bearer {token}"} if token else {}
    target = with_query(url, last=last) if last and not since else url
    return URLSource(target, {**bearer, **headers}, since, news.put, context)


def _channel_source(
    push: Push, channels: tuple[str, ...], since: str, last: int, news: queue.Queue[News]
) -> Source:
    broker = shared_broker(push)
    names = [checked_channel(name) for name in channels]
    numbers = {shard_of(name, len(broker.shards)) for name in names}
    if len(numbers) > 1:
        raise click.UsageError(
            "these channels lie on several shards: start one command for each channel, or give the URL of a "
            "stream"
        )
    # If the broker cannot be reached now, the command ends. If the broker fails later, the command waits.
    within(ANSWER_TIMEOUT, partial(broker.shards[numbers.pop()].probe, NO_INBOX), "Is it really Redis?")
    # The command prints a remark when the link breaks, so the log needs no message about it meanwhile.
    logger = logging.getLogger(LinkReader.__module__)
    click.get_current_context().call_on_close(partial(logger.setLevel, logger.level))
    logger.setLevel(logging.CRITICAL)
    return ChannelSource(broker, names, since, last, push.services.settings, news.put)


def _screen(title: str, summary: Summary) -> contextlib.AbstractContextManager[object]:
    try:
        from .screen import Screen
    except ImportError as error:
        raise _not_installed(error) from error
    return Screen(title, summary)


def _not_installed(error: ImportError) -> click.ClickException:
    return click.ClickException(
        f"flask sse tail needs {error.name}: pip install 'flask-sse-push[tail]' "
        "(not needed for --channel with --json)"
    )


def _title(url: str) -> str:
    """Returns the URL without its secrets: user, password and query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
