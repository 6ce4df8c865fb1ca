"""gunicorn's configuration for the demo, and a model for your own: what matters for streams, and why."""

# First of all lines: whatever is imported before the patching keeps blocking sockets and locks, and one of
# them holds up every stream of a worker.
from gevent import monkey

monkey.patch_all()

import os  # noqa: E402
import secrets  # noqa: E402
import signal  # noqa: E402
from typing import Any  # noqa: E402

from example_app.demo import ticker  # noqa: E402
from flask_sse_push.brokers import embedded  # noqa: E402

from flask_sse_push.drain import watch  # noqa: E402

# A stream costs a greenlet on a gevent worker; on a sync worker it would cost the whole worker.
worker_class = "gevent"
workers = int(os.environ.get("WEB_CONCURRENCY") or os.cpu_count() or 1)

# A stream is a connection. Keep this above SSE_PUSH_MAX_STREAMS (900): the rest is for pages. Over it, new
# clients would wait in the kernel's queue without an answer.
worker_connections = 1000

# How long a worker may take to stop. Streams are sent away in half a second; this is for other requests.
graceful_timeout = 30

bind = os.environ.get("BIND") or f"127.0.0.1:{os.environ.get('PORT') or 8000}"

# All workers must sign sessions with the same key. In production set your own: this one changes with
# every start, which signs everybody out.
os.environ.setdefault("SECRET_KEY", secrets.token_hex())


def on_starting(server: Any) -> None:
    """Without a Redis of yours, a Valkey is started here, in the master, for all workers."""
    if not (os.environ.get("SSE_PUSH_BROKER_URL") or os.environ.get("REDIS_URL")):
        os.environ["SSE_PUSH_BROKER_URL"] = embedded.ensure()


def post_worker_init(worker: Any) -> None:
    """Lets a worker's streams end in good order, with a word to the clients, before the worker does."""
    # Ctrl-C reaches all processes of a terminal; the master tells the workers, who must not hear it twice.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    watch(worker)


def when_ready(server: Any) -> None:
    """The demo only: a process that publishes on its own, and a line that says where to look."""
    ticker.start()
    print(f"Open http://{bind} in a browser. Ctrl-C ends the demo.", flush=True)


def on_exit(server: Any) -> None:
    """The demo only."""
    ticker.stop()
