"""gunicorn's configuration in production. docs/deployment.md says how its numbers hang together."""

# First of all lines: what is imported before the patching keeps blocking sockets and locks.
from gevent import monkey

monkey.patch_all()

import os  # noqa: E402
import tempfile  # noqa: E402

worker_class = "gevent"
# In a container set WEB_CONCURRENCY: cpu_count() counts the processors of the whole machine.
workers = int(os.environ.get("WEB_CONCURRENCY") or os.cpu_count() or 1)

# Requests under way at once; streams that were taken over from gunicorn are not among them.
worker_connections = 1000

# Seconds a worker may take to stop. Streams need the first one of them (SSE_PUSH_DRAIN), runs up to 15.
# Whatever stops gunicorn must wait longer before it kills.
graceful_timeout = 30

# gunicorn's own remote control would want a writable home; signals do.
control_socket_disable = True

bind = os.environ.get("BIND") or f"127.0.0.1:{os.environ.get('PORT') or 8000}"

# Where the workers share their metrics: a new folder for each start.
os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", tempfile.mkdtemp(prefix="metrics-"))
