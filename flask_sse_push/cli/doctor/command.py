"""`flask sse doctor`: prints what is wrong with a set-up."""

from __future__ import annotations

import json

import click
from flask import current_app

from ..common import Push, plainly, read_headers
from .examination import examine_all
from .finding import BROKEN, OK, WARNING, Finding


def register(group: click.Group, push: Push) -> None:
    """Adds the command to `group`."""

    @group.command("doctor")
    @click.option("--url", help="A stream of the running app, as browsers reach it, through all proxies.")
    @click.option("--header", "headers", multiple=True, help="What to send there: 'Cookie: session=…'.")
    @click.option(
        "--gunicorn", default="", help="The options you start gunicorn with: '-c conf.py -k gevent'."
    )
    @click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
    def doctor(url: str | None, headers: tuple[str, ...], gunicorn: str, as_json: bool) -> None:
        """Look at the set-up: what is wrong, why it matters, what to do.

        gunicorn's configuration is loaded as gunicorn does it, from ./gunicorn.conf.py when there is one. Run
        it as the user and in the place that runs gunicorn. Exits with 1 when something is broken.
        """
        broken = 0
        with plainly():
            for finding in examine_all(
                push.services.publishing.broker,
                push.services.settings,
                current_app.config,
                gunicorn=gunicorn,
                url=url,
                headers=read_headers(headers),
            ):
                click.echo(json.dumps(finding._asdict()) if as_json else _shown(finding))
                broken += finding.level == BROKEN
        if broken:
            raise click.exceptions.Exit(1)


_COLORS = {OK: "green", WARNING: "yellow", BROKEN: "red"}


def _shown(finding: Finding) -> str:
    mark = click.style(f"{finding.level:8}", fg=_COLORS[finding.level])
    lines = [f"{mark} {finding.name}: {finding.what}"]
    if finding.level != OK:
        lines += [f"         why: {finding.why}", f"         do:  {finding.advice}"]
    return "\n".join(lines)
