"""The oracle of the fault tests finds what it is there to find."""

from __future__ import annotations

import pytest

from tests.support.oracle import Connection, Counts, Ended, Got, Moved, Opened, Record, Told, Verdict, judge

A = frozenset({"a"})
AB = frozenset({"a", "b"})


def at(id: int, epoch: str = "e1") -> str:
    """A cursor; ids below ten are their own base 36."""
    return f"{epoch}-{id}"


def got(serial: int, id: int | None = None, epoch: str = "e1") -> Got:
    return Got(serial, at(serial if id is None else id, epoch), 0.0)


def opened(id: int, *, resumed: bool = False, epoch: str = "e1") -> Opened:
    return Opened(at(id, epoch), resumed, 0.0)


@pytest.fixture
def ledger() -> Counts:
    """Events 1 to 5 at the positions of the same numbers; 3 is for channel b."""
    ledger = Counts()
    for serial in range(1, 6):
        ledger.note(at(serial), ["b" if serial == 3 else "a"], serial)
    return ledger


def verdict(
    ledger: Counts, *logs: list[Record], channels: frozenset[str] = A, complete: bool = True
) -> Verdict:
    """Of one client with these connections."""
    log, cursor = [], None
    for records in logs:
        log.append(Connection(channels, cursor, records=records))
        cursors = [getattr(each, "cursor", None) for each in records]
        cursor = next(filter(None, reversed(cursors)), cursor)
    return judge(ledger, [log], complete=complete)


def counts(found: Verdict) -> tuple[int, int, int]:
    return found.lost, found.doubled, found.disordered


def test_a_clean_stream_is_clean(ledger: Counts) -> None:
    found = verdict(
        ledger, [opened(0), got(1), got(2), got(4), Moved(at(4), 0.0), got(5), Ended("drain", 0.0)]
    )
    assert found.clean()
    assert (found.delivered, found.resets) == (4, 0)


def test_so_is_one_over_two_connections(ledger: Counts) -> None:
    found = verdict(ledger, [opened(0), got(1)], [opened(1, resumed=True), got(2), got(4), got(5)])
    assert found.clean()
    assert found.resumed == 1


def test_a_skipped_event_is_lost(ledger: Counts) -> None:
    assert counts(verdict(ledger, [opened(0), got(1), got(4), got(5)])) == (1, 0, 0)


def test_one_that_never_came_is_lost_if_the_client_stayed(ledger: Counts) -> None:
    log: list[Record] = [opened(0), got(1), got(2), got(4)]
    assert counts(verdict(ledger, log)) == (1, 0, 0)
    assert counts(verdict(ledger, log, complete=False)) == (0, 0, 0)


def test_a_heartbeat_that_passes_an_event_lost_it_and_the_event_is_late(ledger: Counts) -> None:
    log: list[Record] = [opened(0), got(1), Moved(at(3), 0.0), got(2), got(4), got(5)]
    assert counts(verdict(ledger, log)) == (1, 0, 1)


def test_an_event_lost_between_two_connections_is_found(ledger: Counts) -> None:
    found = verdict(ledger, [opened(0), got(1)], [opened(2, resumed=True), got(4), got(5)])
    assert found.disordered == 1, "it did not go on from where it was"


def test_an_event_twice_is_found_in_one_connection_and_over_two(ledger: Counts) -> None:
    assert counts(verdict(ledger, [opened(0), got(1), got(2), got(2), got(4), got(5)])) == (0, 1, 0)
    twice = verdict(ledger, [opened(0), got(1), got(2)], [opened(2, resumed=True), got(2), got(4), got(5)])
    assert counts(twice) == (0, 1, 0)


def test_a_wrong_order_is_found(ledger: Counts) -> None:
    found = verdict(ledger, [opened(0), got(2), got(1), got(4), got(5)])
    assert found.disordered == 1
    assert found.lost == 1


def test_an_event_of_another_channel_or_of_nobody_is_found(ledger: Counts) -> None:
    assert verdict(ledger, [opened(0), got(1), got(2), got(3), got(4), got(5)]).disordered == 1
    assert verdict(ledger, [opened(0), got(1), got(2), got(9, 3), got(4), got(5)]).disordered == 1


def test_a_reset_excuses_what_lies_before_it_and_no_more(ledger: Counts) -> None:
    reset = Told(("a",), "epoch", at(4), 0.0)
    assert verdict(ledger, [opened(0), got(1), reset, got(5)]).clean()
    assert verdict(ledger, [opened(0), got(1), reset]).lost == 1


def test_a_reset_of_one_channel_excuses_only_that(ledger: Counts) -> None:
    reset = Told(("a",), "history", None, 0.0)
    assert verdict(ledger, [opened(0), reset, got(3), got(5)], channels=AB).clean()
    assert verdict(ledger, [opened(0), reset, got(5)], channels=AB).lost == 1
    assert verdict(ledger, [opened(0), reset, got(3), got(4)], channels=AB).lost == 1


def test_epochs_follow_each_other(ledger: Counts) -> None:
    ledger.note(at(7, "e2"), ["a"], 7)
    reset = Told(("a",), "epoch", at(6, "e2"), 0.0)
    log: list[Record] = [opened(0), got(1), got(2), got(4), got(5)]
    assert verdict(ledger, [*log, reset, got(7, epoch="e2")]).clean()
    assert verdict(ledger, [*log, got(7, epoch="e2")]).clean(), "a new epoch that goes on from the old one"
    assert verdict(ledger, [*log, got(7, epoch="e2"), got(5)]).doubled == 1


def test_an_event_of_unknown_fate_may_come_or_not_but_then_to_all(ledger: Counts) -> None:
    ledger.doubt(["a"], 8)
    with_it: list[Record] = [opened(0), got(1), got(2), got(4), got(5), got(8)]
    without: list[Record] = [opened(0), got(1), got(2), got(4), got(5), Moved(at(9), 0.0)]
    logs = [[Connection(A, None, records=records)] for records in (with_it, without)]
    assert judge(ledger, logs[:1]).clean()
    assert judge(ledger, logs[1:]).clean()
    assert judge(ledger, logs).lost == 1


def test_an_event_with_two_ids_was_stored_twice(ledger: Counts) -> None:
    assert verdict(ledger, [opened(0), got(1), got(2), got(4), got(5, 6)]).doubled == 1


def test_one_stored_again_after_a_loss_may_have_an_id_in_each_epoch(ledger: Counts) -> None:
    ledger.note(at(7, "e2"), ["a"], 5)
    ledger.note(at(8, "e2"), ["a"], 8)
    told, untold = Told(("a",), "epoch", at(6, "e2"), 0.0), Moved(at(6, "e2"), 0.0)
    both = [got(5, 7, "e2"), got(8, epoch="e2")]
    log: list[Record] = [opened(0), got(1), got(2), got(4), got(5)]
    assert verdict(ledger, [*log, told, *both]).clean()
    assert verdict(ledger, [*log, untold, *both]).doubled == 1
    assert verdict(ledger, [*log, told, both[1]]).lost == 1, "the second is due as well"
    assert verdict(ledger, [*log, told, *both, got(5, 9, "e2")]).doubled == 2, "two in one epoch"
