"""An app with an outbox. DATABASE_URL names the database, and RELAY=1 makes a worker the relay."""

from __future__ import annotations

import os

from flask import request
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from flask_sse_push import sse
from flask_sse_push.outbox import Outbox

from .plain import app

engine = create_engine(os.environ.get("DATABASE_URL", "sqlite://"))
outbox = Outbox(engine, sse, relay=bool(os.environ.get("RELAY")))

__all__ = ["app"]


@sse.authorize_admin
def admin(user: object) -> bool:
    return True


@app.post("/orders/<int:order>")
def pay(order: int) -> str:
    """Publishes an event in a transaction, which the view rolls back if the query says so."""
    with Session(engine) as session:
        outbox.publish(session, {"order": order}, "paid", channel="orders")
        session.rollback() if "fail" in request.args else session.commit()
    return ""
