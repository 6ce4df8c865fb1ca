"""Who may listen, how much, and for how long.

Offers: `identity` (who sends a request), `bearer` (JSON Web Tokens), `flask_login`, `tickets`, `policy`
(may this user listen to this channel?), `limits` (streams and attempts of a user and of an address) and
`recheck` (checks open streams again). Must not know: routes, response headers, how a stream is written.
"""
