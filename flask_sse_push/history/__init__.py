"""What a worker knows of the past: the recent events of its channels, and how far it has seen.

Offers: `shards.Shards`, which has a link reader, a history fetcher and a history cache for each shard of the
broker; `placement`, the shards that a set of channels lies on; `recovery`, the events that a stream missed.
Must not know: groups, sockets, Flask. The caller holds the hub's lock.
"""
