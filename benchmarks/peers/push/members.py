"""The benchmark's app with users who sign in with flask-login. A view lists the streams of a user."""

from __future__ import annotations

from typing import Any

from flask_login import LoginManager, UserMixin, login_required, login_user, logout_user

from flask_sse_push import sse

from .app import app

app.secret_key = "shared by the workers"
login = LoginManager(app)


class Member(UserMixin):
    def __init__(self, id: str) -> None:
        self.id = id


login.user_loader(Member)


@sse.authorize
def allowed(user: Any, channel: str) -> bool:
    return user is not None and channel == "bench"


@app.post("/login/<name>")
def sign_in(name: str) -> str:
    login_user(Member(name))
    return ""


@app.post("/logout")
@login_required
def sign_out() -> str:
    logout_user()
    return ""


@app.get("/connections/<name>")
def connections(name: str) -> list[dict[str, Any]]:
    return sse.connections(user_id=name)


__all__ = ["app"]
