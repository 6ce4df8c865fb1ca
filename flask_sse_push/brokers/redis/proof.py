"""Tells live messages of this package from messages that another program has published.

Redis keeps the keys of two databases apart, but not their pub/sub. So a program that cannot read the keys
may still publish to the channels. The state has a secret for each epoch, and publish.lua puts a proof in
front of each live message: a hash of the secret, the channel and the first line of the entry, which has the
entry's id. Nobody can make a proof for another channel or another id without the secret.
"""

from __future__ import annotations

import re
import secrets
from hashlib import sha1
from hmac import compare_digest

_MESSAGE = re.compile(rb"([0-9a-f]{40}) (([a-z0-9]{1,16}) [^\n]*)\n")
#: How many characters of a message come before its entry.
LENGTH = 41


def new_secret() -> str:
    """Returns a secret for a new epoch."""
    return secrets.token_hex(16)


class Proofs:
    """Checks the proofs of live messages. Knows the secret of the newest epoch that a reply has named."""

    def __init__(self) -> None:
        self._known = b"", b""  # an epoch and its secret, in one attribute because two threads use them

    @property
    def is_empty(self) -> bool:
        """Whether no reply has named a secret yet."""
        return not self._known[0]

    def note(self, epoch: bytes, secret: bytes) -> None:
        """Notes the secret in a reply of the broker."""
        self._known = epoch, secret

    def check(self, channel: bytes, message: bytes) -> bool | None:
        """Returns whether publish.lua has published a message on a channel.

        Returns None if the message does not belong to the epoch of the known secret.
        """
        found = _MESSAGE.match(message)
        if found is None:
            return False
        epoch, secret = self._known
        if found[3] != epoch:
            return None
        proof = sha1(b"%b%b %b%b" % (secret, channel, found[2], secret), usedforsecurity=False)
        return compare_digest(proof.hexdigest().encode(), found[1])
