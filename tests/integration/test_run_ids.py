"""The ids of runs that the app chooses."""

from __future__ import annotations

import pytest

from flask_sse_push import InvalidEvent
from tests.support.deadline import eventually

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
