"""How the bytes of a stream reach its client's socket.

Must not know Flask, the broker, or who may listen. Offers:

- `selection.Transports` chooses a transport for each request.
- `base` has the parts that all transports share: the response body, and the handling of slow clients.
- `generator` is the transport that works on every WSGI server.
- `hijack` is the transport that takes the socket from gunicorn's gevent worker.
- `cost` says what a stream costs on the server of a request.
- `wsgi_server` finds gunicorn's worker, and notices when the process stops.

To support another server, write a transport, and add a row to `selection.TRANSPORTS`.
"""
