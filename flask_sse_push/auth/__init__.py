"""Who may listen, how much, and for how long.

Offers: `identity` (who sends a request), `bearer` (JSON Web Tokens), `flask_login`, `tickets`, `policy`
(may this user listen to this channel), `limits` (streams and attempts per user and address), `recheck`
(asks again while a stream is open). Must not know: routes, headers of responses, how a stream is written.
"""
