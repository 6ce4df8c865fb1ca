"""From a request to its response.

Offers: `routes` (the blueprint's routes and its registration), `stream` (opens a stream), `services` (makes
the parts of a process on first use), `page` (cursors for templates). Inside, `query` reads a stream's
parameters, `cors` checks origins, `api` publishes and changes channels, `admin` serves metrics, health and
reports, `body` reads JSON, `refusal` makes the error responses. Must not know: how events are cached or
written.
"""
