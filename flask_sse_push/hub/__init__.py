"""The live streams of one worker: which of them get the same bytes, and the thread that writes to them.

Offers `hub.Hub`, `stream.Stream` (the base class of an open response), `commands`, `listener`, `counters`.
Inside, `opening` brings a new stream to its group. `dispatcher` takes what came from the broker, `fanout`
finds the groups of an event, and `group` makes their chunks. `channel_changes` and `disconnect` change open
streams. `maintenance` sends heartbeats and drains a worker that stops. Must not know sockets, Flask, or who
may listen.
"""
