"""An app with members, who sign in with a session, a token or a ticket.

The environment variable `RULES` names a file: {"<user>": ["<channel>", …]}. It says who is a member, and on
which channels each member may listen. A test may change it while the app runs.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from flask import Flask
from flask_login import LoginManager, UserMixin, current_user, login_required, login_user, logout_user

from flask_sse_push import BearerJWT, sse
from flask_sse_push.auth.flask_login import session_identity

#: Signs the tokens of tests.
KEY = "a secret of thirty-two bytes, at least"

app = Flask(__name__)
app.secret_key = "the workers share it"
login = LoginManager(app)
sse.identify(BearerJWT(KEY, algorithms=["HS256"]))
sse.identify(session_identity)
app.register_blueprint(sse, url_prefix="/stream")


class Member(UserMixin):  # type: ignore[misc]
    def __init__(self, id: str) -> None:
        self.id = id


def rules() -> dict[str, list[str]]:
    return json.loads(Path(os.environ["RULES"]).read_text())  # type: ignore[no-any-return]


@login.user_loader  # type: ignore[untyped-decorator]
def load(id: str) -> Member | None:
    return Member(id) if id in rules() else None


@sse.authorize
def allowed(user: Any, channel: str) -> bool:
    return user is not None and channel in rules().get(user.id, ())


@app.get("/")
def page() -> dict[str, int]:
    return {"pid": os.getpid()}


@app.post("/login/<name>")
def sign_in(name: str) -> str:
    login_user(Member(name))
    return ""


@app.post("/logout")
def sign_out() -> str:
    logout_user()
    return ""


@app.post("/ticket")
@login_required  # type: ignore[untyped-decorator]
def ticket() -> str:
    return sse.ticket(current_user, "club", 30)


@app.get("/stats")
def stats() -> dict[str, Any]:
    return {"pid": os.getpid(), **sse.stats()}
