"""Where events are published to, kept and announced: in memory, on Redis or Valkey, Sentinel, Cluster.

Modules: `announcer` and `commander` (publish events and commands), `base` (the contract of a broker and of a
link), `counts` (per-worker counts, added up over all workers) and `url`, whose `connect_broker` returns the
broker for a URL. To add a broker, add a module here, a line in `url` and a line in the fixtures of
tests/contract. The modules must not import code about streams, channel caches or Flask.
"""
