"""Handles HTTP requests: from a request to its response.

Offers `routes` (the blueprint's routes and its registration), `endpoints` (reads an app's settings on first
use), `stream` (opens a stream), `services` (makes the broker, the hub and the other parts of a process on
first use) and `page` (cursors for templates). Inside, `late_settings` warns of settings that change later,
`query` reads the parameters of a stream, `cors` checks origins, `api` publishes and changes channels,
`operations` serves metrics and health and takes reports of clients, `admin/` serves the admin page, `body`
reads JSON, and `refusal` makes the error responses. Must not know how events are cached or written.
"""
