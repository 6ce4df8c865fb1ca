"""Decides who may listen, to which channels, to how many streams, and for how long.

Offers `identity` (who sends a request), `bearer` (JSON Web Tokens) with `signing_keys` and `jwks_client` (the
public keys of an identity provider), `flask_login`, `tickets`, `policy` (may this user listen to this
channel?), `limits` (how many streams one user or one address may open) and `recheck` (checks open streams
again). Must not know routes, response headers, or how a stream is written.
"""
