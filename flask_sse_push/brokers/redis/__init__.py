"""The brokers on Redis and Valkey: one server, Sentinel, Cluster.

Offers: `broker` (one server, and what the others share), `counts`, `sentinel`, `cluster`. The Lua scripts
in `lua/` each do one job in one atomic step and begin with their keys and arguments. `broker` translates
the errors of redis-py into BrokerUnavailable; no other module sees them.
"""
