"""gunicorn's configuration in production. docs/deployment.md explains how its numbers fit together."""

# These must be the first lines: a module imported before the patching keeps blocking sockets and locks.
from gevent import monkey

monkey.patch_all()

import os  # noqa: E402
import tempfile  # noqa: E402

worker_class = "gevent"
# Set WEB_CONCURRENCY in a container, because cpu_count() counts the processors of the whole machine.
workers = int(os.environ.get("WEB_CONCURRENCY") or os.cpu_count() or 1)

# How many requests a worker handles at the same time. Streams on the hijack transport do not count.
worker_connections = 1000

# Seconds that a worker may take to stop. Streams need one second (SSE_PUSH_DRAIN), runs need up to 15.
# systemd, Compose or Kubernetes must wait longer than this before they kill gunicorn.
graceful_timeout = 30

# gunicorn's remote control needs a writable home directory. It is off, because signals are enough.
control_socket_disable = True

bind = os.environ.get("BIND") or f"127.0.0.1:{os.environ.get('PORT') or 8000}"

# The folder in which the workers share their metrics. Each start needs a new one.
os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", tempfile.mkdtemp(prefix="metrics-"))
