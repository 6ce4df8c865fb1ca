"""What a worker knows of the past: recent events of its channels, and how far it has seen.

Offers: `shards.Shards` (a link, a fetcher and a history cache for each shard of the broker), `placement`
(which shards a set of channels lies on), `recovery` (the events that a stream missed) and `position`
(where a stream stands). Must not know: groups, chunks, sockets, Flask. The caller holds the hub's lock.
"""
