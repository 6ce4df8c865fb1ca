"""The account of a fault test finds every fault in the clients' logs."""

from __future__ import annotations

import pytest

from tests.support.account.logs import LogAccount
from tests.support.account.records import Connection, Ended, Got, Moved, Opened, Record, Reset, cursor_of
from tests.support.account.verdict import Verdict

A = frozenset({"a"})
AB = frozenset({"a", "b"})


def at(id: int, epoch: str = "e1") -> str:
    """Returns a cursor. An id below ten is written the same in base 36."""
    return f"{epoch}-{id}"


def got(serial: int, id: int | None = None, epoch: str = "e1") -> Got:
    return Got(serial, at(serial if id is None else id, epoch), 0.0)


def opened(id: int, *, resumed: bool = False, epoch: str = "e1") -> Opened:
    return Opened(at(id, epoch), resumed, 0.0)


@pytest.fixture
def account() -> LogAccount:
    """Returns an account of events 1 to 5, at the positions of the same numbers. Event 3 is for channel b."""
    account = LogAccount()
    for serial in range(1, 6):
        account.note(at(serial), ["b" if serial == 3 else "a"], serial)
    return account


def verdict(
    account: LogAccount, *logs: list[Record], channels: frozenset[str] = A, complete: bool = True
) -> Verdict:
    """Returns the verdict about one client with these connections."""
    log, cursor = [], None
    for records in logs:
        log.append(Connection(channels, cursor, records=records))
        cursors = list(map(cursor_of, records))
        cursor = next(filter(None, reversed(cursors)), cursor)
    return account.verdict([log], complete=complete)


def counts(found: Verdict) -> tuple[int, int, int]:
    return found.lost, found.doubled, found.disordered


def test_a_clean_stream_is_clean(account: LogAccount) -> None:
    found = verdict(
        account, [opened(0), got(1), got(2), got(4), Moved(at(4), 0.0), got(5), Ended("drain", 0.0)]
    )
    assert found.clean()
    assert (found.delivered, found.resets) == (4, 0)


def test_a_clean_stream_over_two_connections_is_clean(account: LogAccount) -> None:
    found = verdict(account, [opened(0), got(1)], [opened(1, resumed=True), got(2), got(4), got(5)])
    assert found.clean()
    assert found.resumed == 1


def test_a_skipped_event_is_lost(account: LogAccount) -> None:
    assert counts(verdict(account, [opened(0), got(1), got(4), got(5)])) == (1, 0, 0)


def test_an_event_that_never_arrived_is_lost_if_the_client_stayed(account: LogAccount) -> None:
    log: list[Record] = [opened(0), got(1), got(2), got(4)]
    assert counts(verdict(account, log)) == (1, 0, 0)
    assert counts(verdict(account, log, complete=False)) == (0, 0, 0)


def test_an_event_after_a_heartbeat_with_a_later_cursor_is_lost_and_late(account: LogAccount) -> None:
    log: list[Record] = [opened(0), got(1), Moved(at(3), 0.0), got(2), got(4), got(5)]
    assert counts(verdict(account, log)) == (1, 0, 1)


def test_an_event_lost_between_two_connections_is_found(account: LogAccount) -> None:
    found = verdict(account, [opened(0), got(1)], [opened(2, resumed=True), got(4), got(5)])
    assert found.disordered == 1, "it did not go on from where it was"


def test_a_repeated_event_is_found_in_one_connection_and_over_two(account: LogAccount) -> None:
    assert counts(verdict(account, [opened(0), got(1), got(2), got(2), got(4), got(5)])) == (0, 1, 0)
    twice = verdict(account, [opened(0), got(1), got(2)], [opened(2, resumed=True), got(2), got(4), got(5)])
    assert counts(twice) == (0, 1, 0)


def test_a_wrong_order_is_found(account: LogAccount) -> None:
    found = verdict(account, [opened(0), got(2), got(1), got(4), got(5)])
    assert found.disordered == 1
    assert found.lost == 1


def test_an_event_of_another_channel_or_never_published_is_found(account: LogAccount) -> None:
    assert verdict(account, [opened(0), got(1), got(2), got(3), got(4), got(5)]).disordered == 1
    assert verdict(account, [opened(0), got(1), got(2), got(9, 3), got(4), got(5)]).disordered == 1


def test_a_reset_excuses_only_events_before_it(account: LogAccount) -> None:
    reset = Reset(("a",), "epoch", at(4), 0.0)
    assert verdict(account, [opened(0), got(1), reset, got(5)]).clean()
    assert verdict(account, [opened(0), got(1), reset]).lost == 1


def test_a_reset_of_one_channel_excuses_only_its_events(account: LogAccount) -> None:
    reset = Reset(("a",), "history", None, 0.0)
    assert verdict(account, [opened(0), reset, got(3), got(5)], channels=AB).clean()
    assert verdict(account, [opened(0), reset, got(5)], channels=AB).lost == 1
    assert verdict(account, [opened(0), reset, got(3), got(4)], channels=AB).lost == 1


def test_a_reset_may_name_the_broadcast_channel_but_no_foreign_one(account: LogAccount) -> None:
    def reset(*channels: str) -> Verdict:
        return verdict(account, [opened(0), got(1), Reset(channels, "history")], channels=AB)

    assert reset("*", "b").disordered == 0
    assert reset("c", "b").disordered == 1


def test_epochs_follow_each_other(account: LogAccount) -> None:
    account.note(at(7, "e2"), ["a"], 7)
    reset = Reset(("a",), "epoch", at(6, "e2"), 0.0)
    log: list[Record] = [opened(0), got(1), got(2), got(4), got(5)]
    assert verdict(account, [*log, reset, got(7, epoch="e2")]).clean()
    assert verdict(account, [*log, got(7, epoch="e2")]).clean(), "a new epoch that goes on from the old one"
    assert verdict(account, [*log, got(7, epoch="e2"), got(5)]).doubled == 1


def test_an_event_that_may_have_failed_must_reach_all_clients_or_none(account: LogAccount) -> None:
    account.doubt(["a"], 8)
    with_it: list[Record] = [opened(0), got(1), got(2), got(4), got(5), got(8)]
    without: list[Record] = [opened(0), got(1), got(2), got(4), got(5), Moved(at(9), 0.0)]
    logs = [[Connection(A, None, records=records)] for records in (with_it, without)]
    assert account.verdict(logs[:1]).clean()
    assert account.verdict(logs[1:]).clean()
    assert account.verdict(logs).lost == 1


def test_an_event_with_two_ids_was_stored_twice(account: LogAccount) -> None:
    assert verdict(account, [opened(0), got(1), got(2), got(4), got(5, 6)]).doubled == 1


def test_an_event_stored_again_after_a_loss_may_have_an_id_in_each_epoch(account: LogAccount) -> None:
    account.note(at(7, "e2"), ["a"], 5)
    account.note(at(8, "e2"), ["a"], 8)
    reset, heartbeat = Reset(("a",), "epoch", at(6, "e2"), 0.0), Moved(at(6, "e2"), 0.0)
    both = [got(5, 7, "e2"), got(8, epoch="e2")]
    log: list[Record] = [opened(0), got(1), got(2), got(4), got(5)]
    assert verdict(account, [*log, reset, *both]).clean()
    assert verdict(account, [*log, heartbeat, *both]).doubled == 1
    assert verdict(account, [*log, reset, both[1]]).lost == 1, "the client must get the second copy too"
    assert verdict(account, [*log, reset, *both, got(5, 9, "e2")]).doubled == 2, "two in one epoch"


def test_an_unknown_cursor_must_bring_a_reset_before_anything_else(account: LogAccount) -> None:
    lost = Opened("lost", False)
    reset = Reset(("a",), "cursor", at(2))
    assert verdict(account, [lost, reset, got(4), got(5)]).clean()
    assert counts(verdict(account, [lost, got(4), reset, got(5)])) == (1, 0, 1)
    assert verdict(account, [lost]).lost == 1, "the reset never came"


def test_violations_of_the_protocol_are_found(account: LogAccount) -> None:
    events: list[Record] = [got(1), got(2), got(4), got(5)]
    assert verdict(account, events).disordered, "no `sse.open`"
    assert verdict(account, [opened(0), opened(0), *events]).disordered == 1
    assert verdict(account, [opened(0, resumed=True), *events]).disordered == 1, "there was no cursor"
    assert verdict(account, [opened(0), *events, Reset(("c",), "history")]).disordered == 1, "not its channel"
    assert verdict(account, [opened(0), *events, Moved(at(4))]).disordered == 1, "the cursor went back"
