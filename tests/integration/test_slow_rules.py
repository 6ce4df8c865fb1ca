"""Rules that take time or hang: what is revoked or expires meanwhile, and the streams of other users."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Self

import pytest

from flask_sse_push.auth import recheck, rule_threads
from tests.support.deadline import eventually, stretched

from .conftest import MakeApp
from .test_blueprint import Reader, listening
from .test_recheck import Site, close_reason, data, joined, lost_channel


class SlowSite(Site):
    """A site whose rule waits for the test, for chosen users and channels."""

    def __init__(self, make_app: MakeApp, **settings: Any) -> None:
        super().__init__(make_app, **{"recheck": 3600, **settings})
        self.slow: set[tuple[str | None, str]] = set()
        self.inside = 0  # how many calls of the rule wait now
        self.go = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.go.set()  # no rule hangs longer than its test

    def allowed(self, user: str | None, channel: str) -> bool:
        answer = super().allowed(user, channel)
        if (user, channel) in self.slow:
            self.inside += 1
            self.go.wait(60)
            self.inside -= 1
        return answer

    @contextlib.contextmanager
    def waiting(self, call: Callable[[], Any]) -> Iterator[None]:
        """Makes a call whose rule is inside its wait while the block runs; afterwards the rule answers."""
        thread = threading.Thread(target=call)
        thread.start()
        eventually(lambda: self.inside)
        yield
        assert self.inside
        self.slow.clear()
        self.go.set()
        thread.join(60)


@pytest.fixture
def site(make_app: MakeApp) -> Iterator[SlowSite]:
    made = SlowSite(make_app)
    yield made
    made.go.set()


# -- revoked while the rule is asked -------------------------------------------------------------------------


def test_a_channel_revoked_while_a_client_asks_to_join_does_not_come(site: SlowSite) -> None:
    with site.stream("red") as ada:
        site.slow = {("ada", "blue")}
        with site.waiting(lambda: site.ask_to_join("blue")):
            site.revoke("ada", "blue")
            site.publish("between", "red")
            assert ada.next()["data"] == "between"  # so the worker has handled the revocation
        assert lost_channel(ada) == "blue"
        assert joined(ada) == []
        site.publish("secret", "blue")
        site.publish("open", "red")
        assert ada.next()["data"] == "open"


def test_the_other_channels_of_the_request_are_joined(site: SlowSite) -> None:
    site.rules["ada"] |= {"green"}
    with site.stream("red") as ada:
        site.slow = {("ada", "blue")}
        path = f"/stream/{site.opened['connection']}/channels?as=ada"
        wanted = {"join": ["blue", "green"], "secret": site.opened["secret"]}
        with site.waiting(lambda: site.app.test_client().post(path, json=wanted)):
            site.revoke("ada", "blue")
        assert lost_channel(ada) == "blue"
        assert joined(ada) == ["green"]


def test_a_channel_revoked_before_the_client_asks_may_come(site: SlowSite) -> None:
    """The app revoked the channel, then allowed it again."""
    with site.stream("red") as ada:
        site.revoke("ada", "blue")
        site.publish("between", "red")
        assert ada.next()["data"] == "between"  # so the worker has handled the revocation
        site.ask_to_join("blue")
        assert joined(ada) == ["blue"]
        site.publish("welcome", "blue")
        assert ada.next()["data"] == "welcome"


def test_a_revocation_of_another_user_or_channel_keeps_nothing_from_a_join(site: SlowSite) -> None:
    with site.stream("red") as ada:
        site.slow = {("ada", "blue")}
        with site.waiting(lambda: site.ask_to_join("blue")):
            site.revoke("bob", "blue")
            site.revoke("ada", "green")
        assert joined(ada) == ["blue"]


def test_a_user_revoked_while_the_request_is_under_way_is_not_joined(site: SlowSite) -> None:
    with site.stream("red") as ada:
        site.slow = {("ada", "blue")}
        with site.waiting(lambda: site.ask_to_join("blue")):
            site.revoke("ada")
            assert close_reason(ada) == ("revoked", False)


@pytest.mark.parametrize("company", [False, True], ids=["first stream of the worker", "others are open"])
@pytest.mark.parametrize(("channel", "reconnect"), [(None, False), ("red", True)])
def test_rights_revoked_while_a_stream_asks_for_them_show_no_event(
    site: SlowSite, channel: str | None, reconnect: bool, company: bool
) -> None:
    """Also not the events that the stream missed."""
    site.slow = {("ada", "red")}
    answers: list[Any] = []
    with contextlib.ExitStack() as streams:
        if company:
            streams.enter_context(listening(site.app.test_client(), "/stream?channels=sse"))
        path = "/stream?channels=red,blue&as=ada&last=10"
        with site.waiting(lambda: answers.append(site.app.test_client().get(path, buffered=False))):
            site.revoke("ada", channel)
            site.publish("secret", "red")
        reader = Reader(answers[0])
        events = []
        with contextlib.suppress(StopIteration):
            while True:
                events.append(reader.next())
        assert "secret" not in [event["data"] for event in events]
        assert events[-1]["event"] == "sse.close"
        assert data(events[-1])["reconnect"] is reconnect
        answers[0].close()


def test_an_answer_older_than_all_remembered_revocations_makes_the_client_reconnect(
    site: SlowSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    with site.stream("red", "bob"):
        site.slow = {("ada", "red")}
        answers: list[Any] = []
        path = "/stream?channels=red&as=ada"
        with site.waiting(lambda: answers.append(site.app.test_client().get(path, buffered=False))):
            monkeypatch.setattr("flask_sse_push.hub.revocations.KEPT", 0.0)
        assert close_reason(Reader(answers[0])) == ("recheck", True)
        answers[0].close()


def test_a_join_older_than_all_remembered_revocations_makes_the_client_reconnect(
    site: SlowSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    with site.stream("red") as ada:
        site.slow = {("ada", "blue")}
        with site.waiting(lambda: site.ask_to_join("blue")):
            monkeypatch.setattr("flask_sse_push.hub.revocations.MAX_KEPT", 1)
            site.revoke("ada", "blue")
            site.revoke("bob")
            site.revoke("eve")
        assert close_reason(ada) == ("recheck", True)


def test_a_channel_that_the_app_added_is_checked_once_the_client_joins_it_again(make_app: MakeApp) -> None:
    site = Site(make_app)
    with site.stream("red") as ada, site.app.app_context():
        connection = site.opened["connection"]
        site.sse.join(connection, "blue")
        assert joined(ada) == ["blue"]
        site.sse.leave(connection, "blue")
        assert joined(ada) == []
        site.ask_to_join("blue")
        assert joined(ada) == ["blue"]
        site.rules["ada"] = {"red"}
        assert lost_channel(ada) == "blue"


# -- rechecks side by side -----------------------------------------------------------------------------------


def test_an_identity_expires_in_time_while_the_rules_of_others_hang(make_app: MakeApp) -> None:
    with SlowSite(make_app, recheck=0.2) as site, contextlib.ExitStack() as streams:
        for _ in range(rule_threads.SIDE_BY_SIDE + 2):
            streams.enter_context(site.stream("red", "bob"))
        site.slow = {("bob", "red")}
        eventually(lambda: site.inside >= rule_threads.SIDE_BY_SIDE)
        site.lifetime = 1.5
        ada = streams.enter_context(site.stream("blue"))
        event = ada.next()
        late = time.time() - site.expires
        assert (event["event"], data(event)["code"]) == ("sse.error", 1103)
        assert close_reason(ada) == ("expired", False)
        assert -0.1 <= late < stretched(1)
        assert site.inside >= rule_threads.SIDE_BY_SIDE


def test_the_rules_are_asked_side_by_side_but_not_all_at_once(make_app: MakeApp) -> None:
    with SlowSite(make_app, recheck=0.2) as site:
        count = rule_threads.SIDE_BY_SIDE
        with contextlib.ExitStack() as streams:
            for _ in range(2 * count):
                streams.enter_context(site.stream("red", "bob"))
            site.slow = {("bob", "red")}
            lag = site.app.extensions["sse_push"][site.sse].services.gauges
            eventually(lambda: site.inside == count and lag().recheck_lag > 0.3)
            assert site.inside == count
            site.slow.clear()
            site.go.set()
            eventually(lambda: lag().recheck_lag == 0)


def test_a_rule_that_hangs_ends_its_own_stream_and_no_other(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(recheck, "HUNG", 0.5)
    monkeypatch.setattr(rule_threads, "SIDE_BY_SIDE", 1)
    with SlowSite(make_app, recheck=0.2) as site:
        with site.stream("red", "bob") as bob, site.stream("blue") as ada:
            site.slow = {("bob", "red")}
            assert close_reason(bob) == ("recheck", True)
            assert site.inside == 1
            calls = site.calls
            eventually(lambda: site.calls > calls + 2)  # the checks of others go on
            site.publish("still here", "blue")
            assert ada.next()["data"] == "still here"
        assert "has not answered for 0.5 s" in caplog.text
        site.go.set()
        threads = site.app.extensions["sse_push"][site.sse].services.streaming.recheck._threads
        eventually(lambda: (threads._hanging, threads._places) == (0, 1))


def test_streams_whose_rights_nobody_can_check_any_more_are_closed(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More rules hang than are replaced. The other streams are not left unchecked."""
    for module, name, value in (
        (recheck, "HUNG", 0.3),
        (rule_threads, "SIDE_BY_SIDE", 1),
        (rule_threads, "MAX_HANGING", 2),
    ):
        monkeypatch.setattr(module, name, value)
    with SlowSite(make_app, recheck=0.2) as site, contextlib.ExitStack() as streams:
        bobs = [streams.enter_context(site.stream("red", "bob")) for _ in range(5)]
        site.slow = {("bob", "red")}
        assert {close_reason(bob) for bob in bobs} == {("recheck", True)}
        assert site.inside == 3


def test_checks_that_come_late_are_in_the_log_once(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(recheck, "LATE", 0.3)
    monkeypatch.setattr(rule_threads, "SIDE_BY_SIDE", 1)
    monkeypatch.setattr(recheck, "HUNG", 0.5)  # the timer looks at streams that wait at least this often
    site = SlowSite(make_app, recheck=0.2)
    site.sse.authorize(lambda user, channel: not threading.Event().wait(0.1))
    with contextlib.ExitStack() as streams:
        for _ in range(10):
            streams.enter_context(site.stream("red", "bob"))
        eventually(lambda: "should have been checked by now" in caplog.text)
        assert caplog.text.count("should have been checked by now") == 1
