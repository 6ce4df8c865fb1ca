"""The page "Live": shows the events of several channels over one stream, and has a form to publish."""

from __future__ import annotations

from flask import abort, render_template, url_for
from flask_login import current_user, login_required

from flask_sse_push import sse

from .. import broker
from ..page import Page, json_body, now
from ..signin import USERS

#: Channel for all users who have signed in. The channels news and ticks are for everybody.
CHAT = "chat"
MAX_TEXT = 500

page = Page("live", __name__, public=True, allows=lambda user, channel: channel == CHAT)


@page.get("/")
def show() -> str:
    """Shows the page. Its stream carries the public channels; after signing in, also the chat and the user's
    own channel."""
    channels = ["news", "ticks"]
    if current_user.is_authenticated:
        channels += [CHAT, f"user:{current_user.id}"]
    stream = url_for("sse.stream", channels=",".join(channels))
    command = broker.command("sse", "publish", "news", '{"text": "Hello from the terminal"}')
    return render_template(
        "live.html", stream=stream, channels=channels, targets=_targets(), command=command, max_text=MAX_TEXT
    )


@page.post("/publish")
@login_required  # type: ignore[untyped-decorator]
def publish() -> dict[str, str]:
    """Publishes the text from the form. Returns the event's cursor."""
    body = json_body()
    channel, text = body.get("channel"), body.get("text")
    if not isinstance(channel, str) or channel not in _targets():
        abort(403, f"publishing to {channel!r} is not allowed")
    if not isinstance(text, str) or not text.strip():
        abort(400, "text is missing")
    message = {
        "from": current_user.name,
        "text": text.strip(),
        "at": now(),
    }
    # Several channels share one stream. The event's type lets the page tell them apart.
    return {"cursor": sse.publish(message, _type(channel), channel=channel)}


def _targets() -> dict[str, str]:
    """Returns the channels that the form offers, with their descriptions. Only the ticker publishes ticks."""
    return {"news": "News, to everybody", CHAT: "Chat, to all who signed in"} | {
        f"user:{user.id}": f"Private, to {user.name}" for user in USERS.values()
    }


def _type(channel: str) -> str:
    return "private" if channel.startswith("user:") else channel
