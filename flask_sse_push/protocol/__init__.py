"""What goes over the wire, as pure functions and values: nothing here does I/O.

Offers: `event` (what an app publishes, and its bytes), `channel` (names), `entry` (an event as brokers store
it), `frames` (the protocol's own events), `batch`, `command`, `cursor` and `shard_cursor`. Must not know:
anything but `errors` and `config`.
"""
