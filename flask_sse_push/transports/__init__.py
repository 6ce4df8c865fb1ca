"""How the bytes of a stream reach its client's socket.

Offers:

- `selection.Transports` chooses a transport for each request.
- `base` has the parts that all transports share: the response body, and the handling of slow clients.
- `generator` is the transport that works on every WSGI server.
- `hijack` is the transport that takes the socket from gunicorn's gevent worker.
- `wsgi_server` is the only module that knows the WSGI server.

To support another server, write a transport, add a row to `selection.TRANSPORTS`, and make `wsgi_server`
recognise when the new server stops. This package must not know Flask, the broker, or who may listen.
"""
