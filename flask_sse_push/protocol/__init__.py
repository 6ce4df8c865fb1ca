"""What goes over the wire, as pure functions and values: nothing here does I/O.

Offers: `event`, `channel` (names), `entry` (an event as brokers store it), `frames` (an event as clients
read it), `batch`, `command`, `cursor` and `shard_cursor`. Must not know: anything but `errors` and
`config`.
"""
