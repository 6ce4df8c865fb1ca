"""A gunicorn configuration that makes Python look as on macOS: without epoll."""

import select

for _name in [name for name in dir(select) if "epoll" in name.lower()]:
    delattr(select, _name)
