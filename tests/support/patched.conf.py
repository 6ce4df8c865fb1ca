"""A gunicorn configuration that patches first, as the documentation advises."""

from gevent import monkey

monkey.patch_all()
