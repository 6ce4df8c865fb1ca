"""Where events are kept and announced: in memory, on Redis or Valkey, Sentinel, Cluster.

Offers: `base` (the contract of a broker and of a link), `counts` (how many each worker holds, summed over all
workers) and `url.connect_broker`, which makes the broker that a URL names. For a new broker, add a module
here, a line in `url` and a line in the fixtures of tests/contract. Must not know: streams, channel caches,
Flask.
"""
