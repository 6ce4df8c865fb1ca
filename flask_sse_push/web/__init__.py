"""From a request to its response: the routes of the blueprint.

Offers: `stream` (opens a stream), `query` (reads its parameters), `cors`, `api` (publishing and channel
changes over HTTP), `admin` (metrics, health, statistics), `page` (cursors for templates), `response`, and
`services`, which makes the parts of a process on first use. Must not know: how events are cached or
written.
"""
