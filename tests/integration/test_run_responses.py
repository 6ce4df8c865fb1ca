"""Responses with runs: ids that the app chooses, wrong keys, and revoked rights."""

from __future__ import annotations

import pytest

from flask_sse_push import InvalidEvent
from tests.support.deadline import eventually
from tests.support.pages import block

from .conftest import MakeApp
from .test_run_formats import Chat, chat, gated

__all__ = ["chat"]


def test_the_app_may_choose_the_id_of_a_run(chat: Chat) -> None:
    with chat.app.test_request_context():
        run = chat.sse.start(gated(chat, "Hel", after=("lo",)), "k", id="answer-7")
        assert run.id == "answer-7"
        second = chat.sse.start(iter(()), "k", id="answer-8")
        assert not second.started
        assert second.id in ("answer-7", None)
        with pytest.raises(InvalidEvent, match="id: has the forbidden character"):
            chat.sse.start(iter(()), "other", id="answer 9")
    late = chat.get("ai-sdk")
    chat.gate.set()
    assert late.rest().chunks[0] == {"type": "start", "messageId": "answer-7"}
    eventually(lambda: chat.get("ai-sdk").response.status_code == 204)


def test_a_revoke_ends_the_response_of_its_user_with_an_error(make_app: MakeApp) -> None:
    app, sse = make_app(broker_url="memory://")
    sse.identify(lambda request: "ada")
    chat = Chat(app, sse)
    chat.items = gated(chat, "Hel", after=("lo",))
    body = chat.post("ai-sdk")
    eventually(lambda: body.text == "Hel")
    with app.app_context():
        sse.revoke("ada")
    assert [chunk["type"] for chunk in body.rest().chunks][-1] == "error"
    chat.gate.set()


def test_an_id_that_no_run_can_have_is_refused_without_telling_whose_it_is(chat: Chat) -> None:
    namespace = {"app": chat.app, "InvalidEvent": InvalidEvent}
    exec(block("docs/ai.md", "python", "def wrong_id(error)"), namespace)
    for id in ("a b", "é", "x" * 300):
        body = chat.post("ai-sdk", id)
        assert body.response.status_code == 400
        assert (
            body.rest()
            .data.decode()
            .startswith("key: does not fit into a channel's name: it must have at most")
        )
        assert chat.get("ai-sdk", id).response.status_code == 204
