"""Group commit: each publisher gets its own outcome, whatever ends the others. Scripts run with gevent."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from flask_sse_push import BrokerUnavailable
from flask_sse_push.brokers.group_commit import GroupCommit, Request
from flask_sse_push.protocol.cursor import Cursor
from flask_sse_push.protocol.entry import Publication
from tests.support.greenlets import Scripts, scripts

SET_UP = """
from gevent import monkey
monkey.patch_all()
import random, time
import gevent
from flask_sse_push import BrokerUnavailable
from flask_sse_push.brokers.group_commit import MOST_EVENTS, GroupCommit, Request
from flask_sse_push.protocol.cursor import Cursor
from flask_sse_push.protocol.entry import Publication

class Broker:
    '''A broker in memory that may lose calls and replies. It stores no call twice.'''

    def __init__(self, trouble=lambda: None, pause=lambda: 0):
        self.stored, self.calls, self.trouble, self.pause = [], [], trouble, pause

    def prepare(self, requests):
        self.calls.append(requests)
        return Call(self, requests)

class Call:
    def __init__(self, broker, requests):
        self.broker, self.requests, self.cursors = broker, requests, None

    def run(self, seconds):
        trouble = self.broker.trouble()
        gevent.sleep(self.broker.pause())
        if trouble == "call lost":
            raise BrokerUnavailable(trouble)
        if self.cursors is None:
            self.cursors = []
            for request in self.requests:
                first = len(self.broker.stored)
                self.broker.stored += [each.body for each in request.publications]
                self.cursors.append([Cursor("e", first + n) for n in range(len(request.publications))])
        gevent.sleep(self.broker.pause())
        if trouble == "reply lost":
            raise BrokerUnavailable(trouble)
        for request, cursors in zip(self.requests, self.cursors):
            request.outcome = cursors

def publish(group, *bodies):
    request = Request([Publication(body, ("a",)) for body in bodies], None)
    group.publish([request])
    return request.result()
"""


@pytest.fixture(scope="module")
def gevent_scripts() -> Iterator[Scripts]:
    with scripts(SET_UP) as running:
        yield running


MODEL = """
def check(seed):
    chance = random.Random(seed)
    troubles = [None] * chance.choice([2, 10, 50]) + ["call lost", "reply lost"]
    broker = Broker(lambda: chance.choice(troubles), lambda: chance.choice([0, 0, 0.001, 0.004]))
    group = GroupCommit(broker.prepare, chance.choice([0.02, 1, 1]))
    done, unknown = {}, set()

    def publisher(number):
        for at in range(12):
            bodies = [b"%d %d %d" % (number, at, n) for n in range(chance.choice([1, 1, 1, 3]))]
            unknown.update(bodies)
            try:
                with gevent.Timeout(chance.choice([0.0005, 0.003, 9, 9, 9]), False):
                    done.update(zip(bodies, publish(group, *bodies)))
                    unknown.difference_update(bodies)
            except BrokerUnavailable as error:
                assert not any(error is each for each in errors)
                errors.append(error)
            if chance.random() < 0.3:
                gevent.sleep(chance.choice([0, 0.002]))

    errors = []
    greenlets = [gevent.spawn(publisher, number) for number in range(20)]
    for greenlet in greenlets[:5]:
        gevent.spawn_later(chance.random() * 0.03, greenlet.kill)
    gevent.joinall(greenlets, timeout=20)
    assert all(each.dead for each in greenlets), "a publisher hangs"
    assert not any(each.exception for each in greenlets), [each.exception for each in greenlets]
    stored = broker.stored
    assert len(set(stored)) == len(stored), "an event is stored twice"
    assert all(stored[cursor.id] == body for body, cursor in done.items()), "a wrong cursor"
    for number in range(20):
        own = [each.split() for each in stored if each.startswith(b"%d " % number)]
        assert own == sorted(own, key=lambda each: (int(each[1]), int(each[2]))), "the order is not kept"
    assert not group._waiting and not group._is_busy and not group._inside
    return len(done), len(unknown & set(stored)), sum(len(each) > 1 for each in broker.calls)

found = [check(seed) for seed in range(40)]
assert all(map(sum, zip(*found))), found
"""


def test_model_every_event_is_stored_once_or_its_publisher_gets_an_error(gevent_scripts: Scripts) -> None:
    gevent_scripts.run(MODEL)


def test_publishers_that_come_during_a_call_share_the_next_one(gevent_scripts: Scripts) -> None:
    gevent_scripts.run(
        """
broker = Broker(pause=lambda: 0.005)
group = GroupCommit(broker.prepare, 5)
gevent.joinall([gevent.spawn(publish, group, b"%d" % n) for n in range(MOST_EVENTS + 50)], raise_error=True)
assert [len(each) for each in broker.calls] == [1, MOST_EVENTS, 49]
assert broker.stored == [b"%d" % n for n in range(MOST_EVENTS + 50)]
"""
    )


def test_publishers_leave_nothing_to_the_garbage_collector(gevent_scripts: Scripts) -> None:
    gevent_scripts.run(
        """
import gc
broker = Broker()
group = GroupCommit(broker.prepare, 5)
gc.collect()
gc.disable()
for each in range(3):
    gevent.joinall([gevent.spawn(publish, group, b"%d" % n) for n in range(5)], raise_error=True)
left = [type(each).__name__ for each in gc.get_objects()]
assert "_Publisher" not in left and "_Group" not in left
"""
    )


def test_another_publisher_repeats_the_call_of_one_that_something_ends(gevent_scripts: Scripts) -> None:
    gevent_scripts.run(
        """
broker = Broker(pause=lambda: 0.02)
group = GroupCommit(broker.prepare, 5)
publishers = [gevent.spawn(publish, group, b"%d" % n) for n in range(4)]
with gevent.Timeout(5):
    while len(broker.calls) < 2:  # until the first call has ended, and 1, 2 and 3 share the second
        gevent.sleep(0.001)
publishers[1].kill()
publishers[2].kill()
gevent.joinall(publishers, timeout=5)
assert [each.value for each in publishers[::3]] == [[Cursor("e", 0)], [Cursor("e", 3)]]
assert sorted(broker.stored) == [b"0", b"1", b"2", b"3"] and len(broker.calls) == 2
"""
    )


def test_a_publisher_whose_greenlet_ends_while_it_waits_stores_nothing(gevent_scripts: Scripts) -> None:
    gevent_scripts.run(
        """
broker = Broker(pause=lambda: 0.02)
group = GroupCommit(broker.prepare, 5)
publishers = [gevent.spawn(publish, group, b"%d" % n) for n in range(3)]
gevent.sleep(0.01)
publishers[1].kill()
gevent.joinall(publishers, timeout=5)
assert broker.stored == [b"0", b"2"]
"""
    )


def test_a_publisher_that_comes_late_gets_the_whole_time_of_its_own(gevent_scripts: Scripts) -> None:
    gevent_scripts.run(
        """
class Slow(Broker):
    def prepare(self, requests):
        self.calls.append(requests)
        return SlowCall(self, requests)

class SlowCall(Call):
    def run(self, seconds):
        gevent.sleep(min(seconds, max(0, opens - time.monotonic())))
        if time.monotonic() < opens:
            raise BrokerUnavailable("no reply")
        super().run(seconds)

opens = time.monotonic() + 1.2
group = GroupCommit(Slow().prepare, 1)
first = gevent.spawn(publish, group, b"first")
gevent.sleep(0.7)
second, third = gevent.spawn(publish, group, b"second"), gevent.spawn(publish, group, b"third")
gevent.joinall([first, second, third], timeout=9)
assert isinstance(first.exception, BrokerUnavailable)
assert second.value and third.value
"""
    )


class Stuck:
    """A call that ends when the test says so."""

    def __init__(self, requests: list[Request], ends: threading.Event) -> None:
        self.requests, self.ends = requests, ends

    def run(self, seconds: float) -> None:
        if not self.ends.wait(min(seconds, 20)):
            raise BrokerUnavailable("no reply")
        for request in self.requests:
            request.outcome = [Cursor("e", 1)]


def test_a_thread_that_waits_too_long_gets_an_error_in_time() -> None:
    ends = threading.Event()
    group = GroupCommit(lambda requests: Stuck(list(requests), ends), 0.5)
    first, second = Request([Publication(b"x", ("a",))], None), Request([Publication(b"y", ("a",))], None)
    threads = [threading.Thread(target=group.publish, args=([each],)) for each in (first, second)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert 0.35 < time.monotonic() - started < 10
    for each in (first, second):
        with pytest.raises(BrokerUnavailable):
            each.result()
    ends.set()
    third = Request([Publication(b"z", ("a",))], None)
    group.publish([third])
    assert third.result() == [Cursor("e", 1)]


def test_the_handler_of_a_signal_may_publish_at_every_moment(gevent_scripts: Scripts) -> None:
    gevent_scripts.run(
        """
import sys
broker = Broker()
group = GroupCommit(broker.prepare, 5)

def publish_interrupted(at):
    '''Publishes. A handler publishes before line number `at` of the module. False: there is no such line.'''
    lines = 0

    def trace(frame, event, argument):
        nonlocal lines
        if frame.f_globals["__name__"] != GroupCommit.__module__:
            return None
        lines += event == "line"
        if event == "line" and lines == at:
            publish(group, b"handler %d" % at)
        return trace

    sys.settrace(trace)
    try:
        publish(group, b"main %d" % at)
    finally:
        sys.settrace(None)
    return lines >= at

at = 1
while publish_interrupted(at):
    at += 1
assert at > 30, at
assert len(set(broker.stored)) == len(broker.stored) == 2 * at - 1, broker.stored  # no handler in the last
"""
    )
