"""Signing in and out with flask-login. There are two demo users, and the page shows their passwords.

A form may name the address of a page in its field `next`. The user gets to this page after signing in.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from flask import Blueprint, Response, flash, jsonify, redirect, render_template, request, url_for
from flask_login import LoginManager, UserMixin, current_user, login_user, logout_user
from werkzeug import Response as AnyResponse
from werkzeug.security import check_password_hash, generate_password_hash

from ..page import page_at

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


def may_open(address: str) -> list[User]:
    """Returns the users who may see the page at an address of this app; none if there is no page."""
    found = page_at(address)
    return [user for user in USERS.values() if found and found.may_see(user)]


@page.get("/signin")
def form() -> str | AnyResponse:
    """Shows the form for signing in, and a button for each user."""
    wanted = request.args.get("next", "")
    if current_user.is_authenticated:
        return _redirect_to(wanted, current_user)
    offered = may_open(wanted) or USERS.values()
    return render_template("signin.html", wanted=wanted if page_at(wanted) else "", offered=offered)


@page.post("/signin")
def sign_in() -> AnyResponse:
    """Starts a session if the name and the password are right."""
    wanted = request.form.get("next", "")
    user = USERS.get(request.form.get("name", "").strip().lower())
    if user is None or not check_password_hash(user.password_hash, request.form.get("password", "")):
        flash("That name and password do not go together.")
        return redirect(url_for("signin.form", next=wanted or None))
    if current_user.is_authenticated:
        logout_user()  # closes the streams of the user who was signed in
    login_user(user)
    return _redirect_to(wanted, user)


@page.post("/signout")
def sign_out() -> AnyResponse:
    """Ends the session."""
    logout_user()
    return redirect(url_for("signin.form"))


@page.get("/whoami")
def who() -> Response:
    """Returns who is signed in. A page calls this when the server has refused its stream."""
    return jsonify(user=current_user.id if current_user.is_authenticated else None)


def _redirect_to(wanted: str, user: User) -> AnyResponse:
    """Redirects to the page that the user wanted to see. Redirects to the start page if the address is no
    page of this app, or if this user may not see it."""
    found = page_at(wanted)
    if found and found.may_see(user):
        return redirect(url_for(f"{found.name}.show"))
    if found:
        flash(f"The page that you wanted to see is for admins. You are signed in as {user.name}.")
    return redirect(url_for("home"))
