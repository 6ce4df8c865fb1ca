"""What all pages of the example need beside their own folders; README.md beside it says how to add one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from flask import Blueprint, abort, jsonify, redirect, request, session, url_for
from flask_login import current_user
from werkzeug.exceptions import HTTPException

from flask_sse_push import BrokerUnavailable, InvalidEvent

#: Whether a user who has signed in may listen to a channel.
Allows = Callable[[Any, str], bool]


class Page(Blueprint):
    """A blueprint with `templates/` and `static/` beside it, under `/<name>`, for those who have signed in.

    What goes wrong in it is answered as JSON: `{"error": "…"}`, which the page's script shows.

    :param allows: which channels the page opens to its users; asked by the app's `@sse.authorize`.
    :param public: whether visitors get it, too; then the views that need a user say `@login_required`.
    :param admins: whether only users with `is_admin` get it, and its channels.
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
        """Whether the page is for a user who has signed in."""
        return not self._admins or bool(user.is_admin)

    def is_offered(self, user: Any) -> bool:
        """Whether the navigation has it: what is for members is offered to visitors, who then sign in."""
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
    """The JSON object that the page's script sent.

    A form of another site cannot send JSON without asking first (a CORS preflight), which gets no leave.
    """
    if request.mimetype != "application/json":
        abort(415, "send application/json")
    body = request.get_json()
    if not isinstance(body, dict):
        abort(400, "send a JSON object")
    return body


def text_in(body: dict[str, Any], field: str, most: int, please: str) -> str:
    """The text in a field of what the page sent, without white space around it.

    Answers 400 when it is missing, empty or longer than `most` characters.

    :param please: what the user is asked for then; the limit is added.
    """
    text = body.get(field)
    if not isinstance(text, str) or not 0 < len(text.strip()) <= most:
        abort(400, f"{please}, in at most {most} characters")
    return text.strip()


def now() -> str:
    """This moment as ISO 8601 in UTC, to the millisecond."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def _failed(error: HTTPException) -> Any:
    return jsonify(error=error.description), error.code


def _invalid(error: InvalidEvent) -> Any:
    return jsonify(error=str(error)), 400


def _unavailable(error: BrokerUnavailable) -> Any:
    return jsonify(error=str(error)), 503
