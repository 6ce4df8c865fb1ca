"""Forks: what a child of a process knows about itself."""

from __future__ import annotations

import os
import time

from flask_sse_push.brokers import forks


def test_a_child_started_when_it_was_forked() -> None:
    own, before = forks.started_at(), time.time()
    assert own <= before
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.write(writer, repr(forks.started_at()).encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as pipe:
        assert before <= float(pipe.read()) <= time.time()
    os.waitpid(child, 0)
    assert forks.started_at() == own
