"""gunicorn would read ./gunicorn.conf.py by itself; this one has nothing in it."""
