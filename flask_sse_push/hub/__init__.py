"""The open streams of one worker, the groups of streams that get the same bytes, and the dispatcher.

Modules for the other packages: `hub` (class `Hub`), `stream` (class `Stream`, the base class of an open
response), `commands`, `listener` and `counters`. Modules used only here: `opening` brings a new stream to
its group. `dispatcher` takes items from the inbox, `fanout` finds the groups of an event, and `group` makes
their chunks. `channel_changes` and `disconnect` change open streams. `maintenance` sends heartbeats, and
`drain` closes the streams of a worker that stops. `background` starts the threads of all packages. This
package must not import sockets or Flask, and does not decide who may listen.
"""
