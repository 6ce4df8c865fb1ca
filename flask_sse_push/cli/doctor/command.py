"""`flask sse doctor`: examines all parts of a set-up and prints the findings."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import click
from flask import current_app

from ...auth.doctor_pass import digest, make_pass
from ...brokers.url import serves_one_process
from ..common import Push, errors_without_traceback, one_line, read_headers, say
from ..time_limit import each_within, time_limit
from ..tls import tls_context, tls_options
from .broker import examine_broker
from .connection import Known, examine_connection
from .exchange import Target
from .finding import BROKEN, OK, WARNING, Finding
from .live import NOTHING_SAID, ask_app, examine_live
from .outbox import examine_outboxes
from .refusal import Place
from .server import examine_server, find_setup
from .settings import examine_settings
from .unreachable_url import is_url


def register(group: click.Group, push: Push) -> None:
    """Adds the command to `group`."""

    @group.command("doctor")
    @click.option(
        "--url", help="The URL of a stream of the running app, as browsers use it, through all proxies."
    )
    @click.option("--header", "headers", multiple=True, help="A header to send to URL: 'Cookie: session=…'.")
    @tls_options
    @click.option("--token", envvar="SSE_TOKEN", help="A Bearer token to send to URL. Or set SSE_TOKEN.")
    @click.option(
        "--gunicorn", default="", help="The options you start gunicorn with: '-c conf.py -k gevent'."
    )
    @click.option("--strict", is_flag=True, help="Exit with 3 if the worst finding is a warning.")
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
    @time_limit(90)
    def doctor(
        url: str | None,
        headers: tuple[str, ...],
        cacert: str | None,
        insecure: bool,
        token: str | None,
        gunicorn: str,
        strict: bool,
        as_json: bool,
        timeout: float,
    ) -> None:
        """Examine the set-up and print what is wrong, why it matters, and what to do.

        Loads gunicorn's configuration as gunicorn does, from ./gunicorn.conf.py if that file exists. So run
        the command as the user who runs gunicorn, and in gunicorn's folder. Exits with 1 if anything is
        broken.

        Example: flask sse doctor --url https://app.example.com/stream?channels=news
        """
        bearer = {"Authorization": f"Bearer {token}"} if token else {}
        request = {**bearer, **read_headers(headers)}
        context = tls_context(cacert, insecure)
        target = Target(url, request, context) if url is not None else None
        levels = set()
        with errors_without_traceback():
            for finding in each_within(timeout, _examine_all(push, gunicorn, target)):
                if as_json:
                    say(json.dumps(finding._asdict()))
                else:
                    _show(finding)
                levels.add(finding.level)
        if BROKEN in levels:
            raise click.exceptions.Exit(1)
        if strict and WARNING in levels:
            raise click.exceptions.Exit(WARNED)


def _examine_all(push: Push, gunicorn: str, target: Target | None) -> Iterator[Finding]:
    """Yields each finding as soon as its check is done. Blocks while a check runs."""
    found: list[Finding] = []
    for finding in _examinations(push, gunicorn, target, found):
        found.append(finding)
        yield finding


def _examinations(
    push: Push, gunicorn: str, target: Target | None, found: Sequence[Finding]
) -> Iterator[Finding]:
    """Yields the findings of all checks.

    :param found: the findings so far. No fault is reported twice.
    """
    services, key = push.services, current_app.secret_key
    settings = services.settings
    yield from examine_settings(settings, current_app.config)
    live = NOTHING_SAID
    if target is not None and is_url(target) and key:  # without a key, a finding about the settings says so
        live = ask_app(target, make_pass([key]))
        yield from examine_live(live, settings, digest([key], settings.broker_url))
    yield from examine_server(find_setup(gunicorn, live), settings, was_asked=target is not None)
    around = "settings" not in _broken(found)
    for finding in examine_broker(services.publishing.broker, settings, around=around):
        yield finding.naming(settings.broker_key)
    yield from examine_outboxes()
    if target is not None:
        in_memory = serves_one_process(settings)
        known = Known(_place(), _broken(found), settings.http_compression, live.protocol, in_memory)
        yield from examine_connection(target, known)


def _broken(found: Sequence[Finding]) -> frozenset[str]:
    return frozenset(finding.name for finding in found if finding.level == BROKEN)


def _place() -> Place:
    rules = current_app.url_map.iter_rules()
    return Place(sorted(rule.rule for rule in rules if rule.endpoint.rpartition(".")[2] == "stream"))


#: The exit code of `--strict` if the worst finding is a warning. click itself exits with 2.
WARNED = 3
_COLORS = {OK: "green", WARNING: "yellow", BROKEN: "red"}

#: At most this many characters of a finding's fact are shown, because the server may have written the fact.
MAX_FACT = 600


def _show(finding: Finding) -> None:
    mark = click.style(f"{finding.level:8} ", fg=_COLORS[finding.level])
    say(f"{finding.name}: {one_line(finding.what, MAX_FACT)}", mark=mark)
    if finding.level != OK:
        say(f"         why: {finding.why}")
        say(f"         do:  {finding.advice}")
