"""Writes Turbo Streams: elements that tell Hotwire's Turbo how to change a page.

from flask_sse_push import sse, turbo
sse.publish(turbo.append("orders", render_template("_order.html", order=order)), channel="orders")

Each function returns the element as `Markup`. Several elements can be added up with `+` and published
together.
https://turbo.hotwired.dev/reference/streams describes the actions.
"""

from __future__ import annotations

from typing import Protocol

from markupsafe import Markup, escape

from ..errors import shown


class Html(Protocol):
    """An object that can write itself as HTML, such as Markup."""

    def __html__(self) -> str: ...


def append(target: str | None, html: str | Html, *, targets: str | None = None) -> Markup:
    """Adds HTML at the end of an element. A child of the element with the same id is replaced.

    The parameters are the same for all functions of this module that take HTML:

    :param target: the id of the element; None if `targets` is given.
    :param html: the HTML, such as a rendered template. It is not escaped.
    :param targets: a CSS selector; all elements that match it are changed.
    :raises ValueError: if not exactly one of `target` and `targets` is given.
    """
    return _stream("append", target, targets, html)


def prepend(target: str | None, html: str | Html, *, targets: str | None = None) -> Markup:
    """Adds HTML at the beginning of an element. A child of the element with the same id is replaced."""
    return _stream("prepend", target, targets, html)


def before(target: str | None, html: str | Html, *, targets: str | None = None) -> Markup:
    """Adds HTML before an element."""
    return _stream("before", target, targets, html)


def after(target: str | None, html: str | Html, *, targets: str | None = None) -> Markup:
    """Adds HTML after an element."""
    return _stream("after", target, targets, html)


def replace(
    target: str | None, html: str | Html, *, targets: str | None = None, morph: bool = False
) -> Markup:
    """Replaces an element.

    :param morph: whether Turbo changes only what differs, so that for example a focused field stays focused.
    """
    return _stream("replace", target, targets, html, morph=morph)


def update(
    target: str | None, html: str | Html, *, targets: str | None = None, morph: bool = False
) -> Markup:
    """Replaces the content of an element.

    :param morph: whether Turbo changes only what differs, so that for example a focused field stays focused.
    """
    return _stream("update", target, targets, html, morph=morph)


def remove(target: str | None = None, *, targets: str | None = None) -> Markup:
    """Removes an element."""
    return _stream("remove", target, targets)


def refresh() -> Markup:
    """Lets Turbo load the page again."""
    return Markup('<turbo-stream action="refresh"></turbo-stream>')


def _stream(
    action: str,
    target: str | None,
    targets: str | None,
    html: str | Html | None = None,
    *,
    morph: bool = False,
) -> Markup:
    if bool(target) is bool(targets):
        raise ValueError(f"turbo.{action} needs the id of an element, or `targets=` with a CSS selector")
    where = f'target="{escape(target)}"' if target else f'targets="{escape(targets)}"'
    method = ' method="morph"' if morph else ""
    content = "" if action == "remove" else f"<template>{_text(action, html)}</template>"
    return Markup(f'<turbo-stream action="{action}" {where}{method}>{content}</turbo-stream>')


def _text(action: str, html: object) -> str:
    if isinstance(html, str):
        return html
    if not hasattr(html, "__html__"):
        raise TypeError(f"turbo.{action} needs HTML: text or Markup, not {shown(html)}")
    return str(html.__html__())
