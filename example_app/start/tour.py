"""What the tiles of the start page show: short scenes that begin again and again. The ticker runs
this module."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from flask_sse_push import MessageAnnouncer

CHANNEL = "tour"
#: Seconds between two pictures.
INTERVAL = 0.5
#: Seconds after which streams no longer replay a picture.
TTL = 30.0

QUESTION = "What is a server-sent event?"
ANSWER = """\
A line of text that the server sends whenever it likes, over a response that stays open. \
The browser reads it at once, and reconnects by itself."""
WORDS = ANSWER.split()
STEPS = ("Received", "Paid", "Packed", "Shipped", "Delivered")
CARDS = ("Oil the mill", "Order ribbon", "Tape the moth")
SALES = (
    ("commit", "Silk ribbon", "sold one"),
    ("rollback", "Brass gear", "nobody hears of it"),
    ("commit", "Punched card", "got a delivery"),
    ("commit", "Brass gear", "sold one"),
)
ACTIVITY = (
    ("deploy", "Grace", "Version 2.4 is live"),
    ("comment", "Ada", "The plan looks good to me"),
    ("alert", "Monitor", "The queue is long: 1,204 jobs"),
    ("comment", "Grace", "I scaled the workers to six"),
    ("deploy", "Ada", "Version 2.4.1 is live"),
    ("alert", "Monitor", "The queue is short again"),
)
SAID = (
    ("Ada", "The roses are out"),
    ("Grace", "On my way, with the watering can"),
    ("Ada", "Bring the tea as well"),
    ("Grace", "Milk or lemon?"),
)
LETTERS = (
    ("grace", "Did you find the moth?"),
    ("ada", "In relay 70. It is in the logbook"),
    ("grace", "Then the tests should pass"),
    ("ada", "They do. Tea at four?"),
)
NOTICES = (
    ("info", "Your export is ready"),
    ("warning", "The disk is 90 % full"),
    ("error", "The backup of tonight failed"),
)
LOG = (
    ("INFO", "worker 2: stream opened by ada"),
    ("DEBUG", "cache: 41 hits, 2 misses"),
    ("WARNING", "slow query: 1.2 s"),
    ("INFO", "worker 1: 128 streams"),
    ("ERROR", "mail server refused the connection"),
    ("INFO", "mail sent at the second try"),
)


def picture(number: int) -> dict[str, Any]:
    """Returns what all tiles show at one moment, by the name of the page. Pictures follow each other by
    number."""
    words = number % (len(WORDS) + 12)  # the tile shows the whole answer for a while
    percent = min(100, number % 48 * 2.5)
    return {
        "assistant": {"question": QUESTION, "answer": " ".join(WORDS[:words]), "done": words >= len(WORDS)},
        "orders": {"step": STEPS[int(percent / 25)], "percent": percent},
        "board": [[text, number // pace % 3] for pace, text in enumerate(CARDS, 5)],
        "stock": _window(SALES, number // 6, 3),
        "timer": {"left": 60 - number // 2 % 61},
        "activity": _window(ACTIVITY, number // 5, 3),
        "rooms": {"here": ("Ada", "Grace")[: 1 + number // 16 % 2], "said": _window(SAID, number // 6, 2)},
        "messages": {"letters": _window(LETTERS, number // 6, 3), "delivered": number % 6 > 2},
        "notifications": {"unread": 1 + number // 8 % 9, "notices": _window(NOTICES, number // 8, 2)},
        "dashboard": [_load(number - back) for back in range(39, -1, -1)],
        "logs": _window(LOG, number // 3, 4),
    }


class Tour:
    """Publishes the next picture each time it is called."""

    def __init__(self) -> None:
        self._numbers = itertools.count()

    def __call__(self, announcer: MessageAnnouncer) -> None:
        """Publishes the next picture.

        :raises BrokerUnavailable: This picture is lost; the next call publishes the next one.
        """
        announcer.publish(picture(next(self._numbers)), "tour", channel=CHANNEL, ttl=TTL)


def _window(items: Sequence[Any], first: int, count: int) -> list[Any]:
    """Returns `count` items from number `first` on. After the last item, the first follows."""
    return [items[number % len(items)] for number in range(first, first + count)]


def _load(number: int) -> int:
    """Returns a processor's load in percent that looks like a real one."""
    return round(46 + 22 * math.sin(number / 7) + 12 * math.sin(number / 2.3) + 8 * math.sin(number * 1.7))
