"""`flask sse tail`: from the options to the source, and from the news to the terminal."""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import sys
import threading
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

import click

from ...brokers.base import NO_INBOX
from ...history.link import LinkReader
from ...protocol.channel import checked_channel, shard_of
from ..common import Push, errors_without_traceback, one_line, read_headers, shared_broker
from .channel import ChannelSource
from .news import Came, Ended, News
from .summary import Summary

if TYPE_CHECKING:
    pass

#: News that may wait for the terminal; then the source waits.
WAITING = 1000
#: Seconds between two looks at silence and the time that is left.
TICK = 0.25


class Source(Protocol):
    """What is followed, in a thread of its own."""

    def run(self) -> None: ...

    def cut(self, why: str) -> None: ...

    def close(self) -> None: ...


class Wish:
    """When it is enough: after `count` events, or `timeout` seconds; None is never."""

    def __init__(self, count: int | None, timeout: float | None) -> None:
        self.count = count
        self._deadline = None if timeout is None else time.monotonic() + timeout

    def is_met(self, account: Summary) -> bool:
        return self.count is not None and account.events >= self.count

    def left(self) -> float:
        """Seconds until the next look, 0 when the time is over."""
        if self._deadline is None:
            return TICK
        return max(0.0, min(TICK, self._deadline - time.monotonic()))


def register(group: click.Group, push: Push) -> None:
    """Adds the command to `group`."""

    @group.command("tail")
    @click.argument("url", required=False)
    @click.option(
        "--channel", "channels", multiple=True, help="A channel, read at the broker; may be repeated."
    )
    @click.option(
        "--since", default="", metavar="CURSOR", help="Begin after this cursor, or with `earliest`."
    )
    @click.option(
        "--last", type=click.IntRange(0), default=0, help="Begin with so many of the newest events."
    )
    @click.option("--count", type=click.IntRange(1), help="End after so many events.")
    @click.option("--timeout", type=click.FloatRange(min=0, min_open=True), help="End after so many seconds.")
    @click.option("--header", "headers", multiple=True, help="What to send to URL: 'Cookie: session=…'.")
    @click.option(
        "--token", envvar="SSE_TOKEN", help="Sent to URL as a Bearer token; or the variable SSE_TOKEN."
    )
    @click.option("--json", "as_json", is_flag=True, help="One JSON object for each event, a line each.")
    @click.option("--all", "everything", is_flag=True, help="Print the protocol's own events (sse.…) too.")
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
    ) -> None:
        """Follow the stream at URL, or channels at the broker.

        In a terminal it shows a live table, elsewhere a line for each event. After a cut it comes back and
        says whether anything was missed. Exits with 1 when the stream ended for good, or when the time was
        over before --count events.
        """
        if (url is None) == (not channels):
            raise click.UsageError("give either a URL or --channel NAME")
        account = Summary(time.monotonic())
        news: queue.Queue[News] = queue.Queue(WAITING)
        with errors_without_traceback():
            if url is not None:
                source = _of_url(url, read_headers(headers), token, since, last, news)
            else:
                source = _of_channels(push, channels, since, last, news)
        on_screen = not as_json and sys.stdout.isatty()
        title = _title(url) if url is not None else ", ".join(channels)
        with _screen(title, account) if on_screen else contextlib.nullcontext():
            lines = Lines(as_json=as_json, everything=everything, silent=on_screen)
            as_wished = follow(source, news, account, Wish(count, timeout), lines)
        if on_screen and account.ended is not None:
            click.echo(one_line(account.ended), err=True)
        click.echo(account.summary(time.monotonic()), err=True)
        if not as_wished:
            raise click.exceptions.Exit(1)


def follow(source: Source, news: queue.Queue[News], account: Summary, wish: Wish, lines: Lines) -> bool:
    """Runs the source and passes on what it tells, until the wish is met, it ends, or Ctrl-C.

    Returns whether it ended as was wished. Blocks.
    """
    threading.Thread(target=source.run, daemon=True).start()
    try:
        while not wish.is_met(account):
            left = wish.left()
            if not left:
                return wish.count is None
            with contextlib.suppress(queue.Empty):
                each = news.get(timeout=left)
                lines.show(each, account.note(each, time.monotonic(), time.time()))
                if isinstance(each, Ended):
                    return False
            silence = account.silence(time.monotonic())
            if silence is not None:
                source.cut(f"nothing has come for {silence:.0f} s")
        return True
    except KeyboardInterrupt:
        return True
    finally:
        source.close()


class Lines:
    """Events to the standard output, a line each; remarks on the stream to the error output.

    :param everything: the protocol's own events too.
    :param silent: nothing at all: it is drawn.
    """

    def __init__(self, *, as_json: bool, everything: bool, silent: bool) -> None:
        self._as_json = as_json
        self._everything = everything
        self._silent = silent

    def show(self, news: News, remark: str | None) -> None:
        """Prints one piece of news."""
        if self._silent:
            return
        if isinstance(news, Came) and (self._everything or not news.is_control):
            click.echo(_as_json(news) if self._as_json else _as_line(news))
        if remark is not None:
            click.echo(one_line(remark), err=True)


def _as_json(event: Came) -> str:
    received = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    found: dict[str, Any] = {"id": event.id, "type": event.type, "data": event.data, "received": received}
    if event.channel:
        found["channel"] = event.channel
    return json.dumps(found)


def _as_line(event: Came) -> str:
    parts = [time.strftime("%H:%M:%S"), *([event.channel] if event.channel else [])]
    return "  ".join([*parts, one_line(event.type), one_line(event.data)])


def _of_url(
    url: str, headers: Mapping[str, str], token: str | None, since: str, last: int, news: queue.Queue[News]
) -> Source:
    try:
        from .url import URLSource, with_query
    except ImportError as error:
        raise _lacking(error) from error
    bearer = {"Authorization": f"Bearer {token}"} if token else {}
    target = with_query(url, last=last) if last and not since else url
    return URLSource(target, {**bearer, **headers}, since, news.put)


def _of_channels(
    push: Push, channels: tuple[str, ...], since: str, last: int, news: queue.Queue[News]
) -> Source:
    broker = shared_broker(push)
    names = [checked_channel(name) for name in channels]
    numbers = {shard_of(name, len(broker.shards)) for name in names}
    if len(numbers) > 1:
        raise click.UsageError("these channels lie on several shards: follow each, or a stream by its URL")
    # A broker that cannot be reached now is an error. One that goes away later is waited for.
    broker.shards[numbers.pop()].probe(NO_INBOX)
    logging.getLogger(LinkReader.__module__).setLevel(logging.CRITICAL)  # the same is told by a remark
    return ChannelSource(broker, names, since, last, push.services.settings, news.put)


def _screen(title: str, account: Summary) -> contextlib.AbstractContextManager[object]:
    try:
        from .screen import Screen
    except ImportError as error:
        raise _lacking(error) from error
    return Screen(title, account)


def _lacking(error: ImportError) -> click.ClickException:
    return click.ClickException(
        f"flask sse tail needs {error.name}: pip install 'flask-sse-push[tail]' "
        "(--channel with --json does without)"
    )


def _title(url: str) -> str:
    """The URL without what may be secret: user, password and query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
