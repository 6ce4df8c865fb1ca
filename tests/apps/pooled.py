"""An app whose pages query a database through a pool of two connections."""

from __future__ import annotations

import os

from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import text

from flask_sse_push import sse

db = SQLAlchemy()


def create_app() -> Flask:
    app = Flask(__name__)
    app.config.update(
        SQLALCHEMY_DATABASE_URI=f"sqlite:///{os.environ['DATABASE']}",
        SQLALCHEMY_ENGINE_OPTIONS={"pool_size": 2, "max_overflow": 0, "pool_timeout": 2},
        SSE_PUSH_PUBLIC_CHANNELS="*",
    )
    db.init_app(app)
    app.register_blueprint(sse, url_prefix="/stream")

    @sse.identify
    def who(request: object) -> object:
        """Reads the user from the database. From then on, the request holds a database connection."""
        return db.session.execute(text("select 'ada'")).scalar()

    @app.get("/")
    def page() -> str:
        return str(db.session.execute(text("select 42")).scalar())

    return app
