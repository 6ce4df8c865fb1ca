"""How the bytes of a stream reach its client's socket.

Offers: `selection.Transports` (chooses a transport for each request), `base` (the response body and the
slow-client policy, which all transports share), the transports `generator` (works on every WSGI server) and
`hijack` (takes the socket from gunicorn's gevent worker), and `server`, the one place that knows the WSGI
server. To support another server, write a transport, add a row to `selection.TRANSPORTS`, and teach `server`
when it stops. Must not know: Flask, who may listen, the broker.
"""
