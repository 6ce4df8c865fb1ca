"""The database of the page "Stock": an SQLite file that all workers share."""

from __future__ import annotations

from typing import Any

from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import CheckConstraint, String, event
from sqlalchemy.orm import Mapped, mapped_column

from .. import folder

#: The articles that the demo begins with.
ARTICLES = ("Silk ribbon", "Brass gear", "Punched card", "Moth, dried")
#: How many pieces of each article a delivery brings.
DELIVERY = 12
#: Seconds that a transaction waits for another one. SQLite lets one transaction write at a time.
PATIENCE = 10


db = SQLAlchemy()


class Article(db.Model):  # type: ignore[name-defined,misc]
    """One article, and how many pieces of it are left. The database refuses a number below 0."""

    __tablename__ = "article"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(40))
    pieces: Mapped[int] = mapped_column(CheckConstraint("pieces >= 0"))


def init_app(app: Flask) -> None:
    """Creates the tables, also those of the outbox, unless another worker has created them."""
    app.config.setdefault("SQLALCHEMY_DATABASE_URI", f"sqlite:///{folder.path() / 'stock.db'}")
    app.config.setdefault("SQLALCHEMY_ENGINE_OPTIONS", {"connect_args": {"timeout": PATIENCE}})
    db.init_app(app)
    with app.app_context(), folder.lock("stock"):
        event.listen(db.engine, "connect", _set_up)
        db.create_all()
        if db.session.query(Article).count() == 0:
            db.session.add_all(Article(name=name, pieces=DELIVERY) for name in ARTICLES)
            db.session.commit()
        db.engine.dispose()


def _set_up(connection: Any, _: Any) -> None:
    """Lets transactions read while another one writes."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
