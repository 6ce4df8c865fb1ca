"""What all pages of the example need beside their own folders; README.md beside it says how to add one."""

from __future__ import annotations

from collections.abc import Callable
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
    """

    def __init__(
        self,
        name: str,
        import_name: str,
        *,
        allows: Allows = lambda user, channel: False,
        public: bool = False,
    ) -> None:
        super().__init__(
            name, import_name, url_prefix=f"/{name}", template_folder="templates", static_folder="static"
        )
        self.allows = allows
        if not public:
            self.before_request(self._need_user)
        self.register_error_handler(HTTPException, _failed)
        self.register_error_handler(InvalidEvent, _invalid)
        self.register_error_handler(BrokerUnavailable, _unavailable)

    def _need_user(self) -> Any:
        if current_user.is_authenticated or request.endpoint == f"{self.name}.static":
            return None
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


def _failed(error: HTTPException) -> Any:
    return jsonify(error=error.description), error.code


def _invalid(error: InvalidEvent) -> Any:
    return jsonify(error=str(error)), 400


def _unavailable(error: BrokerUnavailable) -> Any:
    return jsonify(error=str(error)), 503
