"""Shared by all pages of the example. README.md says how to add a page."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flask import Blueprint, abort, current_app, redirect, request, url_for
from flask_login import current_user
from werkzeug.exceptions import HTTPException

#: Function that says whether a user who has signed in may listen to a channel.
Allows = Callable[[Any, str], bool]


class Page(Blueprint):
    """A blueprint under `/<name>`, with the folders `templates/` and `static/`, for users who have signed in.

    Everybody may load the files in `static/`, and what views whose names begin with `static` return. So the
    scripts of a page load even if its user signs out in another tab meanwhile.

    :param allows: Which channels the page opens to its users. The app's `@sse.authorize` function calls it.
    :param public: Whether visitors may see the page too. Its views that need a user have `@login_required`.
    :param admins: Whether the page and its channels are only for users with `is_admin`.
    :param shows: The file that the page shows beside its Python file; its script, if not given.
    """

    def __init__(
        self,
        name: str,
        import_name: str,
        *,
        allows: Allows = lambda user, channel: False,
        public: bool = False,
        admins: bool = False,
        shows: str = "",
    ) -> None:
        super().__init__(
            name, import_name, url_prefix=f"/{name}", template_folder="templates", static_folder="static"
        )
        self.allows = allows
        self._public, self._admins = public, admins
        self._shows = shows or f"static/{name}.js"
        self.before_request(self._check)

    def may_see(self, user: Any) -> bool:
        """Whether a user who has signed in may see the page."""
        return not self._admins or bool(user.is_admin)

    def is_offered(self, user: Any) -> bool:
        """Whether the navigation shows the page. It shows visitors the pages for members too: they sign in
        first."""
        return not self._admins or (user.is_authenticated and bool(user.is_admin))

    @property
    def code(self) -> dict[str, str]:
        """The text of the page's two main files, by name. The page shows it beside its content."""
        folder = Path(self.root_path)
        files = (folder / "__init__.py", folder / self._shows)
        return {str(file.relative_to(folder.parent)): file.read_text() for file in files}

    def _check(self) -> Any:
        if self._public or str(request.endpoint).startswith(f"{self.name}.static"):
            return None
        if current_user.is_authenticated:
            return None if self.may_see(current_user) else abort(403, "this is for admins")
        if request.method != "GET":
            abort(401, "you are signed out")
        return redirect(url_for("signin.form", next=request.path))


def page_at(address: str) -> Page | None:
    """Returns the page at an address of this app; None if the address is not that of a page."""
    try:
        endpoint, _ = current_app.url_map.bind("").match(address, method="GET")
    except HTTPException:
        return None
    name, _, view = endpoint.rpartition(".")
    found = current_app.blueprints.get(name)
    return found if isinstance(found, Page) and view == "show" else None


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
