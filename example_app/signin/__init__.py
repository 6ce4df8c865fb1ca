"""Signing in and out with flask-login. Two users, whose passwords stand on the page: it is a demo."""

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
    """One who can sign in. `id` is what `user:<id>` channels are named by."""

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
    """The user of a session."""
    return USERS.get(id)


@page.get("/signin")
def form() -> str | AnyResponse:
    """The form to sign in."""
    if current_user.is_authenticated:
        return redirect(url_for("home"))
    return render_template("signin.html", passwords=DEMO_PASSWORDS, admins=ADMINS)


@page.post("/signin")
def sign_in() -> AnyResponse:
    """Starts a session when name and password are right."""
    user = USERS.get(request.form.get("name", "").strip().lower())
    if user is None or not check_password_hash(user.password_hash, request.form.get("password", "")):
        flash("That name and password do not go together.")
        return redirect(url_for("signin.form"))
    login_user(user)
    return redirect(session.pop("next", None) or url_for("home"))  # the page that was asked for


@page.post("/signout")
def sign_out() -> AnyResponse:
    """Ends the session."""
    logout_user()
    return redirect(url_for("signin.form"))


@page.get("/whoami")
def who() -> Response:
    """Who is signed in: pages ask when their stream is refused."""
    return jsonify(user=current_user.id if current_user.is_authenticated else None)
