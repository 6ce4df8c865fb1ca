"""gunicorn's settings in the benchmark. The command line names this file, so gunicorn ignores the
project's."""

worker_class = "gevent"
workers = 1
# A generator stream takes one of the worker's connections. Their limit must not limit the benchmark.
worker_connections = 30000
loglevel = "warning"
