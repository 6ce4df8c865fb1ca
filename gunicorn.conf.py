"""gunicorn's configuration for the demo, and a model for your own: what matters for streams, and why."""

# First of all lines: what is imported before the patching keeps blocking sockets and locks, and one of them
# holds up all streams of a worker.
from gevent import monkey

monkey.patch_all()

import os  # noqa: E402
import secrets  # noqa: E402
import signal  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
from typing import Any  # noqa: E402

# A gevent worker holds thousands of streams; a sync worker would be busy with its first one for ever.
worker_class = "gevent"
workers = int(os.environ.get("WEB_CONCURRENCY") or os.cpu_count() or 1)

# Requests under way at once. Streams over plain HTTP are taken over from gunicorn and need no place here;
# those that cannot be (TLS) stop at nine tenths of it: the rest is for pages. Every stream is an open file,
# so raise the limit of the service too (`ulimit -n`, systemd's LimitNOFILE).
worker_connections = 1000

# Seconds a worker may take to stop. Streams are sent away in the first one; the rest is for other requests.
graceful_timeout = 30

bind = os.environ.get("BIND") or f"127.0.0.1:{os.environ.get('PORT') or 8000}"

# All workers must sign sessions with the same key. In production set your own: this one changes with every
# start, which signs everybody out.
os.environ.setdefault("SECRET_KEY", secrets.token_hex())


# Where the workers share their metrics, when prometheus-client is installed: a new folder for each start.
os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", tempfile.mkdtemp(prefix="sse-push-metrics-"))


def on_starting(server: Any) -> None:
    """Without a Redis of yours, a Valkey is started here, in the master, for all workers."""
    if not any(os.environ.get(key) for key in ("SSE_PUSH_BROKER_URL", "SSE_REDIS_URL", "REDIS_URL")):
        from flask_sse_push.brokers import embedded

        os.environ["SSE_PUSH_BROKER_URL"] = embedded.ensure()


def post_worker_init(worker: Any) -> None:
    """Lets a worker's streams end in good order, with a word to the clients, before the worker does."""
    # Ctrl-C reaches all processes of a terminal; the master tells the workers, who must not hear it twice.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    # Imported in the worker: what the master has imported, a reload (SIGHUP) cannot renew.
    from flask_sse_push.drain import watch

    watch(worker)


def worker_int(worker: Any) -> None:
    """Ends a worker that was told to stop at once, and whose streams have ended."""
    # gunicorn would wait a moment first; a worker that comes to its end meanwhile prints a traceback.
    sys.exit(0)


# -- the demo only ------------------------------------------------------------------------------------------

# What its page "Logs" follows.
os.environ.setdefault("EXAMPLE_LOG", os.path.join(tempfile.mkdtemp(prefix="sse-push-demo-"), "demo.log"))


def when_ready(server: Any) -> None:
    """Starts a process that publishes on its own, and says where to look."""
    command = [sys.executable, "-m", "example_app.ticker", "--parent", str(os.getpid())]
    # A session of its own keeps Ctrl-C from it: the master ends it, after the workers.
    server.ticker = subprocess.Popen(command, start_new_session=True)
    addresses = " ".join(str(listener) for listener in server.LISTENERS)
    print(f"Open {addresses} in a browser. Ctrl-C ends the demo.", flush=True)


def on_exit(server: Any) -> None:
    """Ends that process; nobody waits for it: the master collects all its children anyway."""
    server.ticker.terminate()
