"""Calls from native threads beside gevent. Each script runs in a process of its own, which gevent patches."""

from __future__ import annotations

import subprocess
import sys
import threading

from flask_sse_push.brokers import native_threads
from tests.support.processes import ROOT

SET_UP = """
from gevent import monkey
monkey.patch_all()
import os, threading, time
import gevent
from flask_sse_push.brokers import native_threads

def in_native_thread(call):
    results, done = [], native_threads.lock()
    done.acquire()
    def body():
        try:
            results.append(call())
        except Exception as error:
            results.append(repr(error))
        done.release()
    monkey.get_original("_thread", "start_new_thread")(body, ())
    assert done.acquire(True, 10)
    return results[0]

thread_id = monkey.get_original("_thread", "get_ident")
main = thread_id()
"""


def run(script: str) -> None:
    command = [sys.executable, "-W", "error", "-c", SET_UP + script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_without_gevents_patching_no_thread_is_native() -> None:
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(native_threads.is_native()))
    thread.start()
    thread.join()
    assert found == [False]
    assert native_threads.run(threading.get_ident) == threading.get_ident()
    assert not native_threads.is_courier()


def test_the_courier_runs_the_commands_of_all_native_threads() -> None:
    run(
        """
assert native_threads.run(thread_id) == main
assert not native_threads.is_native() and not native_threads._couriers
first, second = [in_native_thread(lambda: native_threads.run(thread_id)) for _ in range(2)]
assert first == second != main
assert in_native_thread(native_threads.is_native)
assert in_native_thread(lambda: native_threads.run(native_threads.is_courier))
assert not in_native_thread(native_threads.is_courier)
assert in_native_thread(lambda: native_threads.run(lambda: 1 / 0)).startswith("ZeroDivisionError")
"""
    )


def test_commands_run_side_by_side_and_a_late_one_times_out() -> None:
    run(
        """
slow = lambda: native_threads.run(lambda: time.sleep(30), 0.1)
assert in_native_thread(slow).startswith("TimeoutError('the thread that serves native threads did not")
assert in_native_thread(lambda: native_threads.run(lambda: "quick", 5)) == "quick"
"""
    )


def test_a_greenlet_of_a_second_event_loop_waits_without_blocking_the_loop() -> None:
    run(
        """
def second_loop():
    beats = []
    def beat():
        while True:
            beats.append(1)
            gevent.sleep(0.01)
    beating = gevent.spawn(beat)
    waiting = gevent.spawn(native_threads.run, lambda: time.sleep(0.3) or thread_id())
    ran_in = waiting.get()
    beating.kill()
    return ran_in, thread_id(), len(beats)
ran_in, loop, beats = in_native_thread(second_loop)
assert len({ran_in, loop, main}) == 3 and beats > 3, (ran_in, loop, main, beats)
"""
    )


def test_a_forked_child_has_a_courier_of_its_own() -> None:
    run(
        """
def epolls():
    links = [os.path.realpath(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]
    return sum("eventpoll" in link for link in links)

gevent.sleep(0)
in_native_thread(lambda: native_threads.run(thread_id))
assert epolls() == 2
child = os.fork()
if not child:
    try:
        assert epolls() == 1
        assert native_threads.run(thread_id) == main
        assert in_native_thread(lambda: native_threads.run(native_threads.is_courier, 5)) is True
        os._exit(0)
    finally:
        os._exit(1)
deadline = time.monotonic() + 20
status = 0, 0
while status[0] == 0 and time.monotonic() < deadline:
    status = os.waitpid(child, os.WNOHANG)
    time.sleep(0.01)
assert status == (child, 0), status
assert epolls() == 2
assert in_native_thread(lambda: native_threads.run(native_threads.is_courier, 5)) is True
"""
    )


def test_a_native_thread_cannot_start_greenlets_that_must_go_on() -> None:
    run(
        """
native_threads.refuse_native()
assert "make this call in a view or in a greenlet" in in_native_thread(native_threads.refuse_native)
"""
    )


def test_native_threads_and_greenlets_share_a_lock() -> None:
    """With a lock of gevent (`threading.Lock`), some of these threads would wait for ever."""
    run(
        """
lock, counted, ended = native_threads.lock(), [0], []
def count():
    for _ in range(200):
        with lock:
            before = counted[0]
            sum(range(200))
            counted[0] = before + 1
    ended.append(1)
for _ in range(20):
    monkey.get_original("_thread", "start_new_thread")(count, ())
gevent.joinall([gevent.spawn(count) for _ in range(20)])
deadline = time.monotonic() + 20
while len(ended) < 40 and time.monotonic() < deadline:
    gevent.sleep(0.01)
assert (len(ended), counted[0]) == (40, 8000), (len(ended), counted)
"""
    )
