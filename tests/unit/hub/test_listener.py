"""Listeners: the hub calls only methods that a listener overrides."""

from __future__ import annotations

from flask_sse_push.config import Settings
from flask_sse_push.hub.listener import Listeners, StreamListener
from flask_sse_push.hub.stream import Stream
from flask_sse_push.transports.generator import GeneratorStream


class Opened(StreamListener):
    def __init__(self) -> None:
        self.streams: list[Stream] = []

    def opened(self, stream: Stream) -> None:
        self.streams.append(stream)


class Changed(StreamListener):
    def __init__(self) -> None:
        self.changes: list[tuple[tuple[str, ...], tuple[str, ...]]] = []

    def changed(self, stream: Stream, joined: tuple[str, ...], left: tuple[str, ...]) -> None:
        self.changes.append((joined, left))

    def lost(self, stream: Stream) -> None:
        self.changes.append(((), ()))


def test_only_overridden_methods_are_called() -> None:
    opened, changed = Opened(), Changed()
    listeners = Listeners([opened, changed, StreamListener()])
    assert listeners.opened == [opened.opened]
    assert listeners.changed == [changed.changed]
    assert listeners.lost == [changed.lost]
    assert (listeners.first_opened, listeners.opened_with_grant, listeners.closed) == ([], [], [])


def test_a_change_and_a_loss_are_told_to_all_who_listen() -> None:
    one, two = Changed(), Changed()
    listeners = Listeners([one, Opened(), two])
    stream = GeneratorStream("c", None, ("a",), Settings())
    listeners.tell_changed(stream, ("b",), ("a",))
    listeners.tell_lost(stream)
    assert one.changes == two.changes == [(("b",), ("a",)), ((), ())]
