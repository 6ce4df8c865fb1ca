"""Commands to all workers of all machines, such as "end the streams of user 7".

They travel on a channel of their own, as events do: kept in its list, in one order with all events, read
again after a broken link. So each worker gets each command once and in its place among the events, or learns
that some were lost. No stream listens to the channel, since its name is no channel name. A worker listens
while it has streams.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from ..protocol.command import Command, parse_command
from ..protocol.entry import Entry

if TYPE_CHECKING:
    from ..history.channel_cache import ChannelCache

logger = logging.getLogger(__name__)


#: Something to be done outside the hub's lock, in its place among the deliveries.
Effect = Callable[[], None]
#: Obeys one command. Called by the dispatcher under the hub's lock at the command's place in the order of
#: events, so it must neither block nor do I/O; what it returns is done in that place without the lock.
Handler = Callable[[Mapping[str, Any]], Iterable[Effect]]
#: The same for a command given at a monotonic time before, when nobody listened.
LateHandler = Callable[[Mapping[str, Any], float], Iterable[Effect]]
#: A piece of one dispatch: entries that go out before a command, and the command.
Piece = tuple[list[tuple["ChannelCache", Entry]], "Command | None"]


class Commands:
    """Finds the commands among what a worker dispatches, and their handlers."""

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}
        self._late: dict[str, LateHandler] = {}
        self._when_lost: list[Callable[[], None]] = []
        self._head = 0  # id of the newest command up to which all were looked for

    def on(self, name: str, handler: Handler, late: LateHandler | None = None) -> None:
        """Registers the handler of one command. One that comes twice may be obeyed twice.

        :param late: the handler of those from before this worker listened; without it they are passed over.
        """
        self._handlers[name] = handler
        if late is not None:
            self._late[name] = late

    def on_lost(self, listener: Callable[[], None]) -> None:
        """Registers what is called, as handlers are, when commands were lost: the broker lost its data, or
        kept too little."""
        self._when_lost.append(listener)

    def lost(self) -> None:
        """Tells the listeners."""
        for listener in self._when_lost:
            listener()

    def pieces(
        self, cache: ChannelCache | None, entries: list[tuple[ChannelCache, Entry]]
    ) -> Iterator[Piece]:
        """Splits `entries` at the commands among them.

        :param replica: that of the channel of commands. It costs nothing while it stands still.
        """
        begin = 0
        if entries and cache is not None and cache.head != self._head:
            self._head = cache.head
            for at, (where, entry) in enumerate(entries):
                if where is cache:
                    yield entries[begin:at], parse_command(entry)
                    begin = at + 1
        yield entries[begin:] if begin else entries, None

    def run(self, command: Command) -> list[Effect]:
        """What is to be done for `command`; nothing, with a line in the log, when that fails."""
        handler = self._handlers.get(command.name)
        if handler is None:
            logger.warning("a command %r is not known here: do all workers run one version?", command.name)
            return []
        return _obeyed(command.name, partial(handler, command.arguments))

    def catch_up(self, given: Iterable[tuple[Entry, float]]) -> list[Effect]:
        """What is still to be done for commands from before this worker listened.

        :param given: their entries, and when each was given in monotonic seconds.
        """
        effects: list[Effect] = []
        for entry, at in given:
            command = parse_command(entry)
            late = command and self._late.get(command.name)
            if command and late:
                effects += _obeyed(command.name, partial(late, command.arguments, at))
        return effects


def _obeyed(name: str, handler: Callable[[], Iterable[Effect]]) -> list[Effect]:
    try:
        return list(handler())
    except Exception:
        logger.exception("the command %r failed", name)  # the streams must go on
        return []
