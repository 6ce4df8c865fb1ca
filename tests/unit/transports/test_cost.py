"""What a stream costs, judged by what real servers put into the WSGI environment."""

from __future__ import annotations

from typing import Any

import pytest
from werkzeug.test import EnvironBuilder

from flask_sse_push.transports.cost import Cost, cost_of, explanation, refusal

#: Of each server, the keys that are looked at. `THREADS` has one process with several threads.
THREADS: dict[str, Any] = {"wsgi.multithread": True, "wsgi.multiprocess": False}
SINGLE: dict[str, Any] = {"wsgi.multithread": False, "wsgi.multiprocess": False}
FORKED: dict[str, Any] = {"wsgi.multithread": False, "wsgi.multiprocess": True}


@pytest.mark.parametrize(
    ("environ", "cost"),
    [
        (EnvironBuilder().get_environ(), Cost.NOTHING),  # a test client
        ({**THREADS, "SERVER_SOFTWARE": "waitress"}, Cost.THREAD),
        ({**THREADS, "SERVER_SOFTWARE": "Cheroot/11.0"}, Cost.THREAD),
        ({**THREADS, "SERVER_SOFTWARE": "Apache/2.4", "mod_wsgi.version": (5, 0)}, Cost.THREAD),
        ({**FORKED, "SERVER_SOFTWARE": "Apache/2.4", "mod_wsgi.version": (5, 0)}, Cost.SERVER),
        ({**SINGLE, "uwsgi.version": b"2.0"}, Cost.SERVER),
        ({**THREADS, "uwsgi.version": b"2.0", "SERVER_PROTOCOL": "HTTP/2.0"}, Cost.THREAD),
        ({**THREADS, "SERVER_SOFTWARE": "Werkzeug/3", "werkzeug.socket": object()}, Cost.NOTHING),
        ({**SINGLE, "SERVER_SOFTWARE": "Werkzeug/3", "werkzeug.socket": object()}, Cost.SERVER),
        ({**FORKED, "SERVER_SOFTWARE": "Werkzeug/3", "werkzeug.socket": object()}, Cost.THREAD),
        ({**FORKED, "SERVER_SOFTWARE": "Apache/2.4", "wsgi.run_once": True}, Cost.THREAD),  # CGI
        ({**FORKED, "gunicorn.socket": object(), "SERVER_PROTOCOL": "HTTP/1.1"}, Cost.SERVER),
        ({**THREADS, "gunicorn.socket": object(), "SERVER_PROTOCOL": "HTTP/2.0"}, Cost.CONNECTION),
    ],
)
def test_the_cost_of_a_stream(environ: dict[str, Any], cost: Cost) -> None:
    assert cost_of(environ) is cost
    refused = refusal(cost, environ)
    assert (refused and refused.status) == {Cost.SERVER: 503, Cost.CONNECTION: 505}.get(cost)


def test_the_explanation_says_what_the_server_is_and_what_to_change() -> None:
    text = explanation(Cost.THREAD, {**THREADS, "SERVER_SOFTWARE": "waitress"})
    assert text == (
        "the server is waitress: each stream keeps a thread busy: when no thread is free, no page is served; "
        "run gunicorn with -k gevent: `gunicorn -k gevent module:app`"
    )
    assert "uWSGI" in explanation(Cost.SERVER, {**SINGLE, "uwsgi.version": b"2.0"})
