"""A gunicorn configuration that lets gevent patch before anything else, as the documentation advises."""

from gevent import monkey

monkey.patch_all()
