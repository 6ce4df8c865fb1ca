"""The brokers on Redis and Valkey: one server, Sentinel, Cluster.

Offers: `broker`, `sentinel` and `cluster`, each with a `connect`. `client` holds the time limits of a call,
and translates the errors of redis-py into BrokerUnavailable. Each Lua script in `lua/` does one job in one
atomic step, and begins with a description of its KEYS, its ARGV and what it returns.
"""
