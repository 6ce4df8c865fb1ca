"""The brokers on Redis and Valkey: one server, Sentinel, Cluster.

Modules: `broker`, `sentinel` and `cluster`, each with a function `connect`. `client` has the time limits of a
call, and turns redis-py's errors into BrokerUnavailable. Each Lua script in `lua/` does one job in one atomic
step, and begins with a description of its KEYS, its ARGV and its return value.
"""
