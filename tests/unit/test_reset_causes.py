"""A fault test finds out why clients got `sse.reset`, and which resets nothing explains."""

from __future__ import annotations

import pytest

from flask_sse_push.protocol.cursor import LOST
from tests.support.account.logs import LogAccount
from tests.support.account.records import Connection, Got, Opened, Record, Reset
from tests.support.account.resets import BEHIND, FOREIGN, UNEXPLAINED, Causes, Fault, causes_of

KEPT = 5
A = frozenset({"a"})


@pytest.fixture
def account() -> LogAccount:
    """Returns an account of 9 events on channel a. Event n has the position n; its time is n seconds."""
    account = LogAccount()
    for serial in range(1, 10):
        account.sent[serial] = float(serial)
        account.note(f"e1-{serial}", ["a"], serial)
    return account


def causes(account: LogAccount, *records: Record, came_with: str | None = None, foreign: str = "") -> Causes:
    log = [Connection(A, came_with, records=list(records))]
    faults = [Fault("links", 2.5), Fault("hurt", 4.5)]
    return causes_of(account, [log], kept=KEPT, faults=faults, foreign=foreign)


def reset(at: float, reason: str = "history") -> Reset:
    return Reset(("a",), reason, None, at)


def test_a_client_that_missed_more_than_the_kept_events_is_behind(account: LogAccount) -> None:
    found = causes(account, Opened(LOST, False, 8.5), reset(8.5), came_with="e1-2")
    assert found.counts == {(BEHIND, "history"): 1}
    assert found.during == {"hurt": 1}
    assert not found.unexplained


@pytest.mark.parametrize("at", [3.5, 7.5])
def test_while_the_broker_keeps_all_that_a_client_missed_nothing_explains_a_reset(
    account: LogAccount, at: float
) -> None:
    found = causes(account, Opened("e1-1", False, 1.5), Got(2, "e1-2", 2.5), reset(at))
    assert found.counts == {(UNEXPLAINED, "history"): 1}
    assert len(found.unexplained) == 1
    assert "client 0 at e1-2" in found.unexplained[0]


def test_a_client_whose_connection_broke_before_its_reset_gets_another_reset(account: LogAccount) -> None:
    log = [
        Connection(A, "e1-2", records=[Opened(LOST, False, 8.5)]),
        Connection(A, LOST, records=[Opened(LOST, False, 8.6), reset(8.6, "cursor")]),
    ]
    assert causes_of(account, [log], kept=KEPT).counts == {(BEHIND, "cursor"): 1}


def test_foreign_data_explains_later_resets_only(account: LogAccount) -> None:
    assert causes(account, reset(4.7), came_with="e1-3", foreign="hurt").counts == {(FOREIGN, "history"): 1}
    assert causes(account, reset(4.2), came_with="e1-3", foreign="hurt").unexplained


@pytest.mark.parametrize("reason", ["cursor", "epoch"])
def test_a_reset_for_a_bad_cursor_or_lost_data_is_unexplained(account: LogAccount, reason: str) -> None:
    found = causes(account, reset(8.5, reason), came_with="e1-2", foreign="hurt")
    assert found.counts == {(UNEXPLAINED, reason): 1}
    assert f"1 x {UNEXPLAINED} ({reason}); active: 1 x hurt" in str(found)


def test_rounds_add_up(account: LogAccount) -> None:
    total = Causes()
    assert str(total) == "no reset"
    for _ in range(2):
        total.add(causes(account, reset(8.5), came_with="e1-2"))
    assert str(total) == f"2 x {BEHIND} (history); active: 2 x hurt"
