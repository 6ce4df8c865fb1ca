"""Commands: messages to all workers, such as "close the streams of user 7".

Commands are published like events, on a channel that only commands use. So the broker keeps commands in one
order with all events. After its link broke, a worker reads the commands that it missed. Each worker handles
each command once, after the events published before the command, or learns that commands were lost. The name
of the commands' channel is not valid for events, so no stream can listen to it. A worker receives commands
while it has streams or runs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from ..brokers.foreign import ForeignData
from ..protocol.command import COMMAND_CHANNEL, Command, parse_command
from ..protocol.entry import Entry

if TYPE_CHECKING:
    from ..history.channel_cache import ChannelCache

logger = logging.getLogger(__name__)


#: A function that the handler of a command returns. The dispatcher calls the function without the hub's lock,
#: when the deliveries of all events before the command are written.
Effect = Callable[[], None]
#: Handles one command. The dispatcher calls the handler with the command's arguments, under the hub's lock,
#: at the command's place between the events. A handler must not block or do I/O; its effects may do I/O.
Handler = Callable[[Mapping[str, Any]], Iterable[Effect]]
#: Handles a command that was published before this worker subscribed to commands. The second argument is the
#: monotonic time at which the command was published.
LateHandler = Callable[[Mapping[str, Any], float], Iterable[Effect]]
#: First the entries that must be delivered before a command, then the command. The last part has no command.
Part = tuple[list[tuple["ChannelCache", Entry]], "Command | None"]


class Commands:
    """The handlers of all commands, by the command's name."""

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}
        self._late: dict[str, LateHandler] = {}
        self._when_lost: list[Callable[[], None]] = []
        self._when_heard: list[Callable[[int, float], Iterable[Effect]]] = []
        #: The channel cache of the last `begin`: this worker has handled all commands in it.
        self.heard: ChannelCache | None = None
        self._foreign = ForeignData()
        #: Id of the newest command at the last `split`. `split` is not called until a newer command comes.
        self.newest = 0
        #: Id of the command that is being handled.
        self.current = 0

    def on(self, name: str, handler: Handler, late: LateHandler | None = None) -> None:
        """Registers the handler of a command. The handler may get the same command twice.

        :param late: handles commands that were published before this worker subscribed to commands. If it is
            None, such commands are ignored.
        """
        self._handlers[name] = handler
        if late is not None:
            self._late[name] = late

    def on_lost(self, listener: Callable[[], None]) -> None:
        """Registers a function that the dispatcher calls under the hub's lock when commands were lost.

        Commands are lost if the broker loses its data or does not keep commands long enough.
        """
        self._when_lost.append(listener)

    def on_heard(self, listener: Callable[[int, float], Iterable[Effect]]) -> None:
        """Registers a function that is called under the hub's lock when the worker begins to hear commands.

        :param listener: takes the position after which the worker knows every command, and the monotonic time
            at which the broker had reached this position. Returns effects. Called after the late handlers.
        """
        self._when_heard.append(listener)

    def begin(self, cache: ChannelCache, stored_by: Callable[[int], float]) -> list[Effect]:
        """Handles the commands that were published before this worker subscribed to commands.

        Called once for each new channel cache of the commands.

        :param stored_by: see `BrokerClock.stored_by`.
        :returns: the effects of the late handlers.
        """
        self.heard = cache
        effects = self.handle_late((entry, stored_by(entry.id)) for entry in cache.entries)
        for listener in self._when_heard:
            effects += listener(cache.floor, stored_by(cache.floor))
        return effects

    def lost(self) -> None:
        """Calls the functions registered by `on_lost`."""
        for listener in self._when_lost:
            listener()

    def split(self, cache: ChannelCache, entries: list[tuple[ChannelCache, Entry]]) -> list[Part]:
        """Splits `entries` into parts, each with at most one command at its end.

        :param cache: the channel cache of the commands.
        """
        self.newest = cache.head
        parts: list[Part] = []
        begin = 0
        for index, (where, entry) in enumerate(entries):
            if where is cache:
                parts.append((entries[begin:index], self._parsed(entry)))
                begin = index + 1
        return [*parts, (entries[begin:], None)]

    def _parsed(self, entry: Entry) -> Command | None:
        """Returns the command in an entry. If the entry is not a command, reports it and returns None."""
        try:
            return parse_command(entry)
        except ValueError as error:
            self._foreign.report(f"a command on the channel {COMMAND_CHANNEL!r}", str(error))
            return None

    def handle(self, command: Command) -> list[Effect]:
        """Calls the handler of `command` and returns its effects. If the handler fails, logs the error."""
        handler = self._handlers.get(command.name)
        if handler is None:
            logger.warning("unknown command %r: do all workers run the same version?", command.name)
            return []
        self.current = command.id
        return _effects(command.name, partial(handler, command.arguments))

    def handle_late(self, entries: Iterable[tuple[Entry, float]]) -> list[Effect]:
        """Handles commands that were published before this worker subscribed to commands.

        :param entries: the commands' entries, each with the monotonic time at which it was published.
        :returns: the effects of the late handlers.
        """
        effects: list[Effect] = []
        for entry, published_at in entries:
            command = self._parsed(entry)
            late = command and self._late.get(command.name)
            if command and late:
                self.current = command.id
                effects += _effects(command.name, partial(late, command.arguments, published_at))
        return effects


def _effects(name: str, handler: Callable[[], Iterable[Effect]]) -> list[Effect]:
    try:
        return list(handler())
    except Exception:
        logger.exception("the handler of the command %r failed", name)  # the dispatcher must go on
        return []
