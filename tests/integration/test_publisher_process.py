"""Publishing from a process of its own: a cron job, a Celery task, a shell; with and without gevent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from typing import Any

import pytest

from flask_sse_push import MessageAnnouncer
from flask_sse_push.brokers.url import connect_broker
from flask_sse_push.config import Settings
from flask_sse_push.protocol.entry import Entry
from tests.support.deadline import stretched
from tests.support.processes import ROOT, free_port
from tests.unit.protocol.test_data import VALUES

from .conftest import MakeApp

PLAIN = """
import json, sys
from flask_sse_push import MessageAnnouncer
announcer = MessageAnnouncer.from_url(sys.argv[1], SSE_PUSH_PREFIX=sys.argv[2])
cursors = [announcer.publish({"n": n}, "tick", channel="jobs") for n in range(3)]
cursors += announcer.publish_many([{"data": 3, "channel": "jobs"}, {"data": 4, "channel": "jobs"}])
print(json.dumps({"cursors": cursors, "modules": sorted(sys.modules)}))
"""

PATCHED = "from gevent import monkey; monkey.patch_all()\n" + PLAIN

GREENLETS = """
from gevent import monkey; monkey.patch_all()
import json, sys
import gevent
from flask_sse_push import MessageAnnouncer
announcer = MessageAnnouncer.from_url(sys.argv[1], SSE_PUSH_PREFIX=sys.argv[2])
jobs = [gevent.spawn(announcer.publish, n, channel="jobs") for n in range(100)]
gevent.joinall(jobs, raise_error=True)
print(json.dumps({"cursors": [job.value for job in jobs], "modules": []}))
"""

FORKING = """
import json, os, sys
from flask_sse_push import MessageAnnouncer
announcer = MessageAnnouncer.from_url(sys.argv[1], SSE_PUSH_PREFIX=sys.argv[2])
cursors = [announcer.publish("before the fork", channel="jobs")]
ours, theirs = os.pipe()
if os.fork() == 0:
    for n in range(20):
        os.write(theirs, announcer.publish("child", channel="jobs").encode() + b" ")
    os._exit(0)
cursors += [announcer.publish("parent", channel="jobs") for n in range(20)]
os.wait()
cursors += os.read(ours, 65536).decode().split()
print(json.dumps({"cursors": cursors, "modules": []}))
"""


class Job:
    """A finished process that published to a fresh prefix, and what it left."""

    def __init__(self, code: str, url: str) -> None:
        prefix = f"test-{uuid.uuid4().hex}"
        command = [sys.executable, "-W", "error", "-c", code, url, prefix]
        # Measuring coverage would bring gevent in.
        plain = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE_")}
        done = subprocess.run(command, cwd=ROOT, env=plain, capture_output=True, text=True, timeout=180)
        assert (done.returncode, done.stderr) == (0, "")
        result = json.loads(done.stdout)
        self.cursors: list[str] = result["cursors"]
        self.modules: set[str] = set(result["modules"])
        broker = connect_broker(Settings(broker_url=url, prefix=prefix))
        self.entries: list[Entry] = broker.history({"jobs": 0}, "nobody").channels["jobs"].entries
        broker.close()

    def stored(self) -> list[str]:
        return [entry.frame.decode().split("\n")[0].removeprefix("id: ") for entry in self.entries]


@pytest.mark.parametrize("code", [PLAIN, PATCHED], ids=["plain", "monkey-patched"])
def test_events_of_another_process_are_in_the_list(valkey_url: str, code: str) -> None:
    job = Job(code, valkey_url)
    assert job.stored() == job.cursors
    bodies = [entry.frame.decode().partition("\n")[2] for entry in job.entries]
    assert bodies[:3] == [f'event: tick\ndata: {{"n": {n}}}\t\n\n' for n in range(3)]
    assert bodies[3:] == ["data: 3\t\n\n", "data: 4\t\n\n"]


def test_a_plain_publisher_needs_no_gevent(valkey_url: str) -> None:
    assert "gevent" not in Job(PLAIN, valkey_url).modules


def test_greenlets_share_one_announcer(valkey_url: str) -> None:
    job = Job(GREENLETS, valkey_url)
    assert job.stored() == sorted(job.cursors)
    assert len(set(job.cursors)) == 100


def test_an_announcer_survives_a_fork(valkey_url: str) -> None:
    job = Job(FORKING, valkey_url)
    assert job.stored() == sorted(job.cursors)
    assert len(set(job.cursors)) == 41


def test_a_process_without_its_broker_ends_soon_with_the_reason() -> None:
    url = f"redis://127.0.0.1:{free_port()}/0"
    start = time.monotonic()
    command = [sys.executable, "-c", PLAIN, url, "test"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180)
    assert done.returncode == 1
    assert "BrokerUnavailable: Redis: ConnectionError" in done.stderr
    assert time.monotonic() - start < stretched(5)


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_an_announcer_without_an_app_stores_the_same_bytes_as_the_app(make_app: MakeApp, value: Any) -> None:
    app, sse = make_app()
    with app.app_context():
        sse.publish(value)
        published = bodies(sse.announcer)
    announcer = MessageAnnouncer.from_url("memory://")
    announcer.publish(value)
    assert bodies(announcer) == published != []
    announcer.close()


def bodies(announcer: MessageAnnouncer) -> list[bytes]:
    entries = announcer._broker.history({"sse": 0}, "nobody").channels["sse"].entries
    return [entry.frame.partition(b"\n")[2] for entry in entries]


def test_an_announcer_without_an_app_reaches_the_same_events(valkey_url: str) -> None:
    prefix = f"test-{uuid.uuid4().hex}"
    one = MessageAnnouncer.from_url(valkey_url, SSE_PUSH_PREFIX=prefix)
    other = MessageAnnouncer.from_url(valkey_url, SSE_PUSH_PREFIX=prefix)
    assert one.publish("x", id="the-same") == other.publish("x", id="the-same")
    one.close()
    other.close()
