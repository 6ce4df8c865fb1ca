"""What goes over the wire, as pure functions and values: nothing here does I/O.

Modules: `event` (what an app publishes), `channel` (channel names), `entry` (an event as brokers store it),
`frames` (the protocol's own events), `batch`, `command`, `cursor` and `shard_cursor`. Besides one
another, these modules may import only `errors` and `config` from the package.
"""
