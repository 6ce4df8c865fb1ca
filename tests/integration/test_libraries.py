"""Streams for pages of htmx, Turbo and Datastar: resets that reload a page, fragments, reconnection times."""

from __future__ import annotations

import pytest
from datastar_py import ServerSentEventGenerator as datastar
from markupsafe import Markup

from flask_sse_push import turbo

from .conftest import MakeApp
from .test_blueprint import listening


@pytest.mark.parametrize("library", ["turbo", "datastar"])
def test_a_page_of_a_library_reloads_when_events_are_lost(make_app: MakeApp, library: str) -> None:
    app, sse = make_app()
    query = f"/stream?events={library}&last_event_id="
    with listening(app.test_client(), f"{query}unknown") as stream:
        assert stream.next()["event"] == "sse.open"
        event = stream.next()
    assert (event.get("event"), event["data"]) == {
        "turbo": (None, '<turbo-stream action="refresh"></turbo-stream>'),
        "datastar": ("datastar-patch-elements", 'elements <i data-init="location.reload()"></i>'),
    }[library]
    with listening(app.test_client(), query + event["id"]) as stream, app.app_context():
        sse.publish("next")
        assert '"resumed":true' in stream.next()["data"]
        assert stream.next()["data"] == "next"


@pytest.mark.parametrize("library", ["turbo", "datastar"])
def test_no_event_of_such_a_page_comes_in_a_batch(make_app: MakeApp, library: str) -> None:
    app, sse = make_app(batch_ms={"sse": 10})
    with listening(app.test_client(), f"/stream?events={library}") as stream, app.app_context():
        stream.next()
        sse.publish("alone")
        assert stream.next()["data"] == "alone"


def test_fragments_of_each_library_arrive_and_are_replayed_unchanged(make_app: MakeApp) -> None:
    app, sse = make_app()
    elements = datastar.patch_elements("<ul>\n  <li>1</li>\n</ul>", "#orders")
    with app.test_request_context():
        url = sse.url("sse")
        sse.publish(Markup("<li>1</li>"))
        sse.publish(turbo.append("orders", "<li>1</li>"), "order")
        sse.publish_many([{"data": elements}])
        sse.broadcast(datastar.patch_signals({"n": 1}))
    response = app.test_client().get(url, buffered=False)
    body = b""
    for chunk in response.response:
        body += chunk if isinstance(chunk, bytes) else chunk.encode()
        if body.count(b"\nevent: datastar-") == 2:
            break
    response.close()
    _, *frames = body.decode().split("\n\nid: ")
    assert [frame.partition("\n")[2] for frame in frames] == [
        "data: <li>1</li>",
        'event: order\ndata: <turbo-stream action="append" target="orders">'
        "<template><li>1</li></template></turbo-stream>",
        elements.removesuffix("\n\n"),
        'event: datastar-patch-signals\ndata: signals {"n":1}\n\n',
    ]


@pytest.mark.parametrize(
    ("headers", "setting", "most"),
    [({"HX-Request": "true"}, 3, 150), ({"HX-Request": "true"}, 0.02, 30), ({}, 3, 4500)],
)
def test_htmx_waits_only_shortly_when_its_tab_is_shown_again(
    make_app: MakeApp, headers: dict[str, str], setting: float, most: int
) -> None:
    app, _ = make_app(retry=setting)
    with listening(app.test_client(), "/stream", headers=headers) as stream:
        retry = int(stream.next()["retry"])
    assert most / 3 <= retry <= most
