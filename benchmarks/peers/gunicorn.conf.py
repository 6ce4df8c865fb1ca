"""gunicorn under the benchmark. Named on the command line, so that the project's own file does not apply."""

worker_class = "gevent"
workers = 1
# A generator stream takes one of the worker's connections; their limit must not be what is measured.
worker_connections = 30000
loglevel = "warning"
