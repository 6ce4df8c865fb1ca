"""Tickets in Sentry, which reads the URL of a request before Flask does. Uses Sentry's own SDK."""

from __future__ import annotations

import re
import subprocess
import sys
from textwrap import dedent

import pytest

from tests.support.processes import ROOT

APP = """
import sentry_sdk
from sentry_sdk.transport import Transport

envelopes = []

class Collect(Transport):
    def capture_envelope(self, envelope):
        envelopes.append(envelope.serialize().decode())

init = sentry_sdk.init
def init_collecting(**options):
    options.update(dsn="http://key@localhost/1", transport=Collect)
    init(traces_sample_rate=1.0, send_default_pii=True, **options)
sentry_sdk.init = init_collecting
{configuration}

from flask import Flask, request
from flask_sse_push import sse
from flask_sse_push.testing import read_events

app = Flask("traced")
app.secret_key = "test" * 8
app.config.update(SSE_PUSH_BROKER_URL="memory://", SSE_PUSH_PUBLIC_CHANNELS="*")
app.register_blueprint(sse, url_prefix="/stream")

@sse.identify
def who(request):
    if "fail" in request.args:
        raise ValueError("the app failed")

with app.app_context():
    ticket = sse.ticket("ada", ["news"])
    sse.publish("hello", channel="news")
client = app.test_client()
stream = client.get("/stream?channels=news&last=1&ticket=" + ticket, buffered=False)
assert read_events(stream, 1)[0].data == "hello"
assert client.get("/stream?ticket=" + ticket).status_code == 401
assert client.get("/stream?fail=1&ticket=" + ticket).status_code in (401, 500)
assert client.post("/stream", json=dict(channels=["news"], ticket=ticket)).status_code == 401
assert client.post("/stream", data=dict(channels="news", ticket=ticket)).status_code == 401
sentry_sdk.flush()
assert len(envelopes) >= 5, envelopes
assert sum("query_string" in each for each in envelopes) >= 3
print("shown" if any(ticket in each for each in envelopes) else "hidden")
"""


def documented() -> str:
    """Returns the example of docs/access.md."""
    page = (ROOT / "docs" / "access.md").read_text()
    (example,) = re.findall(r"^  ```python\n(  import re\n.+?)^  ```$", page, re.MULTILINE | re.DOTALL)
    return dedent(example)


@pytest.mark.parametrize(
    ("configuration", "tickets"), [("documented", "hidden"), ("none", "shown")], ids=["documented", "none"]
)
def test_sentry_shows_no_ticket_with_the_documented_configuration(configuration: str, tickets: str) -> None:
    code = documented() if configuration == "documented" else "sentry_sdk.init()"
    script = APP.replace("{configuration}", code)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [tickets]
