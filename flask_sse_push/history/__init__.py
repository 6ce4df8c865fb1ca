"""The recent events of a worker's channels, and the recovery of streams that missed events.

Modules for the other packages: `shards` (class `Shards`: a link reader, a history fetcher and a history
cache for each shard of the broker), `placement` (the shards that a set of channels lies on) and
`recovery_driver` (class `Recovery`: sends a stream the events it missed; `recovery` finds these events).
This package must not import groups, sockets or Flask. Its callers hold the hub's lock.
"""
