"""How the bytes of a stream reach its socket.

Offers: `selection.Transports` (picks a transport for a request), `base` (what all transports share),
`generator` (works on every WSGI server), `hijack` (takes the socket from gunicorn's gevent worker) and
`server`, the one place that knows the WSGI server. To support another server, begin there. Must not know:
Flask, rights, the broker.
"""
