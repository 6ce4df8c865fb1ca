"""Shared by all pages of the example. README.md says how to add a page."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, abort, jsonify, redirect, request, session, url_for
from flask_login import current_user
from werkzeug.exceptions import HTTPException

from flask_sse_push import BrokerUnavailable, InvalidEvent

#: Function that says whether a user who has signed in may listen to a channel.
Allows = Callable[[Any, str], bool]


class Page(Blueprint):
    """A blueprint under `/<name>`, with the folders `templates/` and `static/`, for users who have signed in.

    It answers errors as JSON, `{"error": "…"}`, and the page's script shows the text.

    :param allows: Which channels the page opens to its users. The app's `@sse.authorize` function calls it.
    :param public: Whether visitors may see the page too. Its views that need a user have `@login_required`.
    :param admins: Whether the page and its channels are only for users with `is_admin`.
    """

    def __init__(
        self,
        name: str,
        import_name: str,
        *,
        allows: Allows = lambda user, channel: False,
        public: bool = False,
        admins: bool = False,
    ) -> None:
        super().__init__(
            name, import_name, url_prefix=f"/{name}", template_folder="templates", static_folder="static"
        )
        self.allows = allows
        self._public, self._admins = public, admins
        self.before_request(self._check)
        self.register_error_handler(HTTPException, _failed)
        self.register_error_handler(InvalidEvent, _invalid)
        self.register_error_handler(BrokerUnavailable, _unavailable)

    def may_see(self, user: Any) -> bool:
        """Whether a user who has signed in may see the page."""
        return not self._admins or bool(user.is_admin)

    def is_offered(self, user: Any) -> bool:
        """Whether the navigation shows the page. It shows visitors the pages for members too: they sign in
        first."""
        return not self._admins or (user.is_authenticated and bool(user.is_admin))

    def _check(self) -> Any:
        if self._public or request.endpoint == f"{self.name}.static":
            return None
        if current_user.is_authenticated:
            return None if self.may_see(current_user) else abort(403, "this is for admins")
        if request.method != "GET":
            abort(401, "you are signed out")
        session["next"] = request.path
        return redirect(url_for("signin.form"))


def json_body() -> dict[str, Any]:
    """Returns the JSON object that the page's script sent.

    A page of another site cannot send JSON: its browser asks the server first (a CORS preflight), and the
    server does not allow it.
    """
    if request.mimetype != "application/json":
        abort(415, "send application/json")
    body = request.get_json()
    if not isinstance(body, dict):
        abort(400, "send a JSON object")
    return body


def text_in(body: dict[str, Any], field: str, most: int, please: str) -> str:
    """Returns the text in a field of the body, without white space around it.

    Answers 400 when the text is missing, empty or longer than `most` characters.

    :param please: Beginning of the error text, to which this function adds the limit.
    """
    text = body.get(field)
    if not isinstance(text, str) or not 0 < len(text.strip()) <= most:
        abort(400, f"{please}, in at most {most} characters")
    return text.strip()


def now() -> str:
    """Returns the current time in UTC as ISO 8601, with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _failed(error: HTTPException) -> Any:
    return jsonify(error=error.description), error.code


def _invalid(error: InvalidEvent) -> Any:
    return jsonify(error=str(error)), 400


def _unavailable(error: BrokerUnavailable) -> Any:
    return jsonify(error=str(error)), 503
