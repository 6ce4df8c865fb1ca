"""Commands: messages to all workers, such as "close the streams of user 7".

A command travels on a channel of its own, the way events do. The broker keeps it in that channel's history,
in one order with all events, and a worker reads it again after a broken link. So each worker handles each
command once, at its place among the events, or learns that commands were lost. The name of the channel is
not a valid channel name, so no stream can listen to it. A worker listens while it has streams.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from ..protocol.command import Command, parse_command
from ..protocol.entry import Entry

if TYPE_CHECKING:
    from ..history.channel_cache import ChannelCache

logger = logging.getLogger(__name__)


#: Something to do after the hub's lock is released, in order with the deliveries.
Effect = Callable[[], None]
#: Handles one command. The dispatcher calls it with the command's arguments, under the hub's lock, at the
#: command's place among the events. So a handler must not block or do I/O: it returns effects for that.
Handler = Callable[[Mapping[str, Any]], Iterable[Effect]]
#: Handles a command that was published before this worker listened. The second argument is the monotonic time
#: at which it was published.
LateHandler = Callable[[Mapping[str, Any], float], Iterable[Effect]]
#: Entries that must be delivered before a command, and the command; None after the last entries.
Part = tuple[list[tuple["ChannelCache", Entry]], "Command | None"]


class Commands:
    """The handlers of commands."""

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}
        self._late: dict[str, LateHandler] = {}
        self._when_lost: list[Callable[[], None]] = []
        #: Id of the newest command that `split` has seen. There is nothing to split until a newer one comes.
        self.newest = 0

    def on(self, name: str, handler: Handler, late: LateHandler | None = None) -> None:
        """Registers the handler of a command. It may get the same command twice.

        :param late: handles commands from before this worker listened. Without it they are ignored.
        """
        self._handlers[name] = handler
        if late is not None:
            self._late[name] = late

    def on_lost(self, listener: Callable[[], None]) -> None:
        """Registers a function to call when commands were lost, because the broker lost its data or did not
        keep them long enough. The dispatcher calls it under the hub's lock."""
        self._when_lost.append(listener)

    def lost(self) -> None:
        """Calls the functions registered by `on_lost`."""
        for listener in self._when_lost:
            listener()

    def split(self, cache: ChannelCache, entries: list[tuple[ChannelCache, Entry]]) -> list[Part]:
        """Splits `entries` at the commands among them.

        :param cache: the channel cache of the commands.
        """
        self.newest = cache.head
        parts: list[Part] = []
        begin = 0
        for index, (where, entry) in enumerate(entries):
            if where is cache:
                parts.append((entries[begin:index], parse_command(entry)))
                begin = index + 1
        return [*parts, (entries[begin:], None)]

    def handle(self, command: Command) -> list[Effect]:
        """Calls the handler of `command` and returns its effects. If it fails, logs that and returns none."""
        handler = self._handlers.get(command.name)
        if handler is None:
            logger.warning("a command %r is not known here: do all workers run one version?", command.name)
            return []
        return _effects(command.name, partial(handler, command.arguments))

    def handle_late(self, entries: Iterable[tuple[Entry, float]]) -> list[Effect]:
        """Calls the late handlers of commands from before this worker listened; returns their effects.

        :param entries: the commands' entries, each with the monotonic time at which it was published.
        """
        effects: list[Effect] = []
        for entry, published_at in entries:
            command = parse_command(entry)
            late = command and self._late.get(command.name)
            if command and late:
                effects += _effects(command.name, partial(late, command.arguments, published_at))
        return effects


def _effects(name: str, handler: Callable[[], Iterable[Effect]]) -> list[Effect]:
    try:
        return list(handler())
    except Exception:
        logger.exception("the command %r failed", name)  # the streams must go on
        return []
