"""A visit: one request of an admin, with the parameters in its query."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from flask import Request

from ...auth.identity import Identity
from ...errors import InvalidEvent
from ...protocol.channel import checked_channel
from ...protocol.printable import printable
from ..refusal import bad_request
from ..services import Services
from ..stream import StreamEndpoint

#: Runs the checks of `flask sse doctor` for this process. Returns the findings as dicts of texts.
Examine = Callable[[], Sequence[Mapping[str, str]]]

#: At most how many characters a filter may have.
MAX_FILTER = 300
#: How many things a page of a list has, unless the request says so, and at most.
PAGE, MAX_PAGE = 50, 200


class Visit(NamedTuple):
    """One request of an admin."""

    endpoint: StreamEndpoint
    identity: Identity
    request: Request
    rest: str  # what follows the name of the view in the path
    examine: Examine

    @property
    def services(self) -> Services:
        """The parts of this process."""
        return self.endpoint.services

    @property
    def user_id(self) -> str | None:
        """The id of the admin; None if the app lets visitors without a user be admins."""
        return self.endpoint.policy.user_id(self.identity.user)

    def text(self, name: str) -> str | None:
        """Returns a parameter; None if it is missing or empty.

        :raises Refused: 400, if the parameter has more than `MAX_FILTER` characters.
        """
        value = self.request.args.get(name, "")
        if len(value) > MAX_FILTER:
            raise bad_request(f"{name} has {len(value)} characters, at most {MAX_FILTER} are allowed")
        return value or None

    def channel(self, name: str = "name") -> str:
        """Returns a parameter that is the name of a channel.

        :raises Refused: 400, if the parameter is missing or is no name of a channel.
        """
        try:
            return checked_channel(self.text(name) or "")
        except InvalidEvent as error:
            raise bad_request(f"{name} is no name of a channel: {error.problem}") from None

    def limit(self) -> int:
        """Returns how many things the page asks for.

        :raises Refused: 400, if the parameter `limit` is not a number from 1 to `MAX_PAGE`.
        """
        return self.number("limit", PAGE, MAX_PAGE)

    def number(self, name: str, default: int, most: int) -> int:
        """Returns a parameter that is a whole number from 1 to `most`; `default` if it is missing.

        :raises Refused: 400, if the parameter is anything else.
        """
        value = self.text(name)
        if value is None:
            return default
        if not (value.isascii() and value.isdigit() and len(value) < 20 and 1 <= int(value) <= most):
            raise bad_request(f"{name} is {value[:40]!r}, must be a whole number from 1 to {most}")
        return int(value)


def counted(number: int, noun: str) -> str:
    """Returns a number with its noun, such as "1 event" or "2 events"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def shown(text: object, most: int = 300) -> str | None:
    """Returns a text from outside as the page may show it: printable, with at most `most` characters."""
    return None if text is None else printable(str(text)[:most])
