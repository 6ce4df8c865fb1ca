"""gunicorn's configuration for the demo. Use it as a model: it says what streams need, and why."""

# These must be the first lines. A module imported before the patching keeps blocking sockets and locks, and
# one blocking call stops all streams of the worker.
from gevent import monkey

monkey.patch_all()

import os  # noqa: E402
import secrets  # noqa: E402
import shutil  # noqa: E402
import signal  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
from typing import Any  # noqa: E402

# A gevent worker serves thousands of streams. A sync worker would serve its first stream and nothing else.
worker_class = "gevent"
workers = int(os.environ.get("WEB_CONCURRENCY") or os.cpu_count() or 1)

# How many requests a worker handles at the same time. Streams over plain HTTP do not count, because the
# hijack transport takes their sockets from gunicorn. Streams over gunicorn's own TLS do count. They may use
# nine tenths of this number, and the rest is for pages. Every stream is an open file, so also raise the limit
# of the service (`ulimit -n`, systemd's LimitNOFILE).
worker_connections = 1000

# Seconds that a worker may take to stop. Its streams end within the first second. The rest of the time is for
# other requests.
graceful_timeout = 30

bind = os.environ.get("BIND") or f"127.0.0.1:{os.environ.get('PORT') or 8000}"

# All workers must sign sessions with the same key. Set your own key in production: this one changes at every
# start, and everybody is signed out.
os.environ.setdefault("SECRET_KEY", secrets.token_hex())


# The folder in which the workers share their metrics, if prometheus-client is installed. Each start needs a
# new one.
os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", tempfile.mkdtemp(prefix="sse-push-metrics-"))


def post_worker_init(worker: Any) -> None:
    """Makes the runs of a worker end at once when the worker must stop at once."""
    # Ctrl-C sends SIGINT to all processes of a terminal. Workers ignore it: the master stops them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    # Imported here and not at the top: a reload (SIGHUP) cannot renew modules that the master has imported.
    from flask_sse_push.transports.wsgi_server import watch

    watch(worker)


def worker_int(worker: Any) -> None:
    """Ends a worker that must stop at once. flask_sse_push closes the streams before the process ends."""
    # gunicorn would wait for a moment. If the worker reaches its end during that wait, it prints a traceback.
    sys.exit(0)


# -- the demo only ------------------------------------------------------------------------------------------

# The workers share this folder, which has the log of the page "Logs" and the database of the page "Stock".
# The demo removes the folder when it ends.
demo_folder = tempfile.mkdtemp(prefix="sse-push-demo-")
os.environ.setdefault("EXAMPLE_LOG", os.path.join(demo_folder, "demo.log"))

# The address of the demo, which the workers fetch the keys of its tokens from.
os.environ.setdefault("EXAMPLE_ISSUER", f"http://127.0.0.1:{bind.rpartition(':')[2]}")


def when_ready(server: Any) -> None:
    """Starts a process that publishes events, and prints the address of the demo."""
    command = [sys.executable, "-m", "example_app.ticker", "--seed", "--parent", str(os.getpid())]
    # The process runs in a new session, so it does not get Ctrl-C. The master ends it after the workers.
    server.ticker = subprocess.Popen(command, start_new_session=True)
    addresses = " ".join(str(listener) for listener in server.LISTENERS)
    print(f"Open {addresses} in a browser. Ctrl-C ends the demo.", flush=True)


def on_exit(server: Any) -> None:
    """Ends the process that publishes, and the demo's Valkey. Removes the demo's folder. The master reaps all
    its children."""
    from example_app import broker

    server.ticker.terminate()
    broker.stop_embedded()
    shutil.rmtree(demo_folder, ignore_errors=True)
