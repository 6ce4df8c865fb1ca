"""Signing in and out with flask-login. There are two demo users, and the page shows their passwords."""

from __future__ import annotations

from dataclasses import dataclass, field

from flask import Blueprint, Response, flash, jsonify, redirect, render_template, request, session, url_for
from flask_login import LoginManager, UserMixin, current_user, login_user, logout_user
from werkzeug import Response as AnyResponse
from werkzeug.security import check_password_hash, generate_password_hash

page = Blueprint("signin", __name__, template_folder="templates")

login_manager = LoginManager()
login_manager.login_view = "signin.form"
login_manager.login_message = None


@dataclass(frozen=True, eq=False)
class User(UserMixin):  # type: ignore[misc]
    """A user who can sign in. The channel `user:<id>` is named after `id`."""

    id: str
    name: str
    password_hash: str = field(repr=False)
    is_admin: bool = False


#: Shown on the sign-in page.
DEMO_PASSWORDS = {"ada": "difference-engine", "grace": "nanosecond"}
ADMINS = ("ada",)

USERS = {
    id: User(id, id.title(), generate_password_hash(word), id in ADMINS)
    for id, word in DEMO_PASSWORDS.items()
}


@login_manager.user_loader  # type: ignore[untyped-decorator]
def load(id: str) -> User | None:
    """Returns the user of a session; None for an unknown id."""
    return USERS.get(id)


@page.get("/signin")
def form() -> str | AnyResponse:
    """Shows the form for signing in."""
    if current_user.is_authenticated:
        return redirect(url_for("home"))
    return render_template("signin.html", passwords=DEMO_PASSWORDS, admins=ADMINS)


@page.post("/signin")
def sign_in() -> AnyResponse:
    """Starts a session if the name and the password are right."""
    user = USERS.get(request.form.get("name", "").strip().lower())
    if user is None or not check_password_hash(user.password_hash, request.form.get("password", "")):
        flash("That name and password do not go together.")
        return redirect(url_for("signin.form"))
    login_user(user)
    return redirect(session.pop("next", None) or url_for("home"))  # the page that the user wanted to see


@page.post("/signout")
def sign_out() -> AnyResponse:
    """Ends the session."""
    logout_user()
    return redirect(url_for("signin.form"))


@page.get("/whoami")
def who() -> Response:
    """Returns who is signed in. A page calls this when the server has refused its stream."""
    return jsonify(user=current_user.id if current_user.is_authenticated else None)
