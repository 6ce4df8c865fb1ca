"""The live streams of one worker: which get the same bytes, and the thread that writes to them.

Offers: `hub.Hub`, `stream.Stream` (the base of an open response), `commands`, `listener`, `counters`.
Inside, `fanout` finds the groups of an event, `group` makes their chunks, `channel_changes` and
`disconnect` change open streams, `maintenance` does what is due by the clock. Must not know: sockets,
Flask, who may listen.
"""
