"""What the demo begins with, so that no page is empty: the users have written to each other already.

Each event has an id. The broker stores an event with the same id once, so a second start adds nothing.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

from flask_sse_push import MessageAnnouncer

from . import activity, rooms

#: Minutes ago, channel, sender, text.
POSTS = (
    (58, "news", "Grace", "Version 2.4 is live. It replays what a laptop missed while its lid was closed."),
    (24, "news", "Ada", "The workshop is on Thursday at ten, in the library."),
    (17, "chat", "Ada", "Has anybody seen the adapter for the projector?"),
    (15, "chat", "Grace", "Top drawer, behind the tape."),
    (6, "news", "Grace", "The export of large reports is three times as fast now."),
)
LETTERS = (
    (41, "grace", "ada", "Did you find the moth?"),
    (39, "ada", "grace", "In relay 70. It is in the logbook now, with tape over it."),
    (12, "grace", "ada", "Then the tests should pass tonight."),
    (11, "ada", "grace", "They do. Tea tomorrow at four?"),
)
#: Minutes ago, user, level, text, sender.
NOTICES = (
    (190, "ada", "info", "Your export of 4,180 orders is ready.", "Reports"),
    (75, "ada", "warning", "The disk of db-2 is 90 % full.", "Monitor"),
    (8, "ada", "error", "The backup of tonight failed. The next try is at 02:00.", "Backups"),
    (120, "grace", "info", "Ada assigned the review of release 2.4 to you.", "Ada"),
    (30, "grace", "warning", "Two invoices are due this week.", "Billing"),
)
ACTIVITY = (
    (182, "comment", "Ada", "The plan for release 2.4 looks good to me."),
    (171, "deploy", "Grace", "Version 2.4 runs on staging."),
    (96, "alert", "Monitor", "The queue is long: 1,204 jobs wait."),
    (93, "comment", "Grace", "I have scaled the workers from four to six."),
    (88, "alert", "Monitor", "The queue is short again."),
    (58, "deploy", "Grace", "Version 2.4 is live."),
    (52, "comment", "Ada", "No errors so far. Thank you!"),
    (14, "deploy", "Ada", "Version 2.4.1 is live: it corrects the time zone of exports."),
)
SAID = (
    (33, "garden", "Grace", "The roses are out."),
    (31, "garden", "Ada", "On my way, with the watering can."),
    (20, "library", "Ada", "Who has the second volume?"),
    (19, "library", "Grace", "It is on the table by the window."),
    (9, "workshop", "Grace", "The loom is free from two o'clock on."),
)


def publish(announcer: MessageAnnouncer) -> None:
    """Publishes everything that the demo begins with.

    :raises BrokerUnavailable: A later call publishes the rest.
    """
    for ago, channel, name, text in POSTS:
        _once(announcer, {"from": name, "text": text, "at": _before(ago)}, channel, channel)
    for ago, kind, name, text in ACTIVITY:
        event = {"kind": kind, "by": name, "text": text, "at": _before(ago)}
        _once(announcer, event, "activity", activity.channel(kind))
    for ago, room, name, text in SAID:
        event = {"room": room, "by": name, "text": text, "at": _before(ago)}
        _once(announcer, event, "said", rooms.channel(room))
    for ago, writer, reader, text in LETTERS:
        _letter(announcer, ago, writer, reader, text)
    for ago, user, level, text, sender in NOTICES:
        notice = {"id": _id(text), "level": level, "timestamp": _before(ago)}
        _once(announcer, {**notice, "data": {"text": text, "from": sender}}, "notice", f"user:{user}")


def _letter(announcer: MessageAnnouncer, ago: int, writer: str, reader: str, text: str) -> None:
    """Publishes a letter to both users, and its delivery."""
    letter = {"id": _id(text), "from": writer, "to": reader, "text": text, "at": _before(ago)}
    channels = (f"user:{reader}", f"user:{writer}")
    announcer.publish(letter, "letter", channel=channels, id=f"seed:{_id(text)}")
    announcer.publish(
        {"id": _id(text), "by": reader}, "delivered", channel=channels, id=f"{reader}:{_id(text)}"
    )


def _once(announcer: MessageAnnouncer, event: dict[str, Any], type: str, channel: str) -> None:
    """Publishes an event, unless an earlier start of the demo has published it."""
    text = event["data"]["text"] if "data" in event else event["text"]
    announcer.publish(event, type, channel=channel, id=f"seed:{channel}:{_id(text)}")


def _id(text: str) -> str:
    """Returns 32 hexadecimal digits, the same ones for the same text."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _before(minutes: int) -> str:
    """Returns the time before this many minutes, in UTC as ISO 8601."""
    return (datetime.now(UTC) - timedelta(minutes=minutes)).isoformat(timespec="milliseconds")
