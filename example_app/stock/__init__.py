"""The page "Stock": a sale is a transaction. Its events reach the pages if the transaction is committed.

`Outbox` carries the numbers: a page would be wrong for ever without them. `sse.after_commit` carries the
lines below, which a page can do without.
"""

from __future__ import annotations

from typing import Any

from flask import abort, jsonify, render_template, request, url_for
from flask_login import current_user
from sqlalchemy.exc import IntegrityError

from flask_sse_push import sse
from flask_sse_push.outbox import Outbox

from ..page import Page, json_body, now
from .shelf import DELIVERY, Article, db

#: Channel of the page. Everybody who has signed in may listen to it.
CHANNEL = "stock"
#: Number of earlier events that the page begins with.
EARLIER = 20

page = Page("stock", __name__, allows=lambda user, channel: channel == CHANNEL)
outbox = Outbox(db, sse, relay=True)


@page.get("/")
def show() -> str:
    """Shows the page. With `?mode=poll`, it uses short streams, as behind a proxy that holds streams back."""
    articles = db.session.query(Article).order_by(Article.id).all()
    mode = "poll" if request.args.get("mode") == "poll" else "auto"
    stream = url_for("sse.stream", channels=CHANNEL, last=EARLIER)
    return render_template("stock.html", stream=stream, articles=articles, mode=mode)


@page.post("/sell")
def sell() -> Any:
    """Sells one piece. If no piece is left, or if the payment fails, nothing is sold, and no page hears of
    it."""
    body = json_body()
    article = _article(body)
    article.pieces = Article.pieces - 1  # the database counts, so two sales at once sell two pieces
    try:
        _announce(article, "sold one")
    except IntegrityError:
        db.session.rollback()
        abort(409, "sold out: the database has refused the sale")
    if body.get("fails"):
        db.session.rollback()
        abort(409, "nothing was sold: the payment failed, and the sale was rolled back")
    db.session.commit()
    return jsonify()


@page.post("/deliver")
def deliver() -> Any:
    """Fills the shelf of one article."""
    article = _article(json_body())
    article.pieces = DELIVERY
    _announce(article, "got a delivery")
    db.session.commit()
    return jsonify()


@page.get("/backlog")
def backlog() -> Any:
    """Returns how many committed events wait for the relay."""
    return jsonify(waiting=outbox.backlog().waiting)


def _announce(article: Article, what: str) -> None:
    """Adds two events to the transaction.

    :raises IntegrityError: if no piece is left.
    """
    db.session.flush()
    outbox.publish(db.session, {"id": article.id, "pieces": article.pieces}, "pieces", channel=CHANNEL)
    said = {"by": current_user.name, "text": f"{what}: {article.name}", "at": now()}
    sse.after_commit(db.session).publish(said, "said", channel=CHANNEL)


def _article(body: dict[str, Any]) -> Article:
    article = db.session.get(Article, body["article"]) if isinstance(body.get("article"), int) else None
    return article or abort(404, "there is no such article")
