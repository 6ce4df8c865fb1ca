"""`flask sse …`: the command line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click
from flask import current_app

from . import doctor, listing, tail
from .brokers import embedded
from .options import plainly, reachable, read_headers

if TYPE_CHECKING:
    from .blueprint import SSEBlueprint


def add_commands(blueprint: SSEBlueprint) -> None:
    """Gives the blueprint its command group; it is named as the blueprint."""
    listing.add_commands(blueprint)
    tail.add_command(blueprint)

    @blueprint.cli.command("publish")
    @click.argument("channel")
    @click.argument("data")
    @click.option("--type", "type_", help="Event type; none is a plain message.")
    @click.option("--id", "id_", help="Idempotency id: the same one again publishes nothing.")
    def publish(channel: str, data: str, type_: str | None, id_: str | None) -> None:
        """Publish DATA, JSON or plain text, to CHANNEL."""
        with plainly():
            reachable(blueprint)
            click.echo(blueprint.publish(_json_or_text(data), type_, channel=channel, id=id_))
        if embedded.is_own():
            click.echo(
                "No embedded server was running: one was started for this command and ends with it, "
                "so nobody hears this event. Start the app first.",
                err=True,
            )

    @blueprint.cli.command("doctor")
    @click.option("--url", help="A stream of the running app, as browsers reach it, through all proxies.")
    @click.option("--header", "headers", multiple=True, help="What to send there: 'Cookie: session=…'.")
    @click.option(
        "--gunicorn", default="", help="The options you start gunicorn with: '-c conf.py -k gevent'."
    )
    @click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
    def examine(url: str | None, headers: tuple[str, ...], gunicorn: str, as_json: bool) -> None:
        """Look at the set-up: what is wrong, why it matters, what to do.

        gunicorn's configuration is loaded as gunicorn does it, from ./gunicorn.conf.py when there is one. Run
        it as the user and in the place that runs gunicorn. Exits with 1 when something is broken.
        """
        broken = 0
        with plainly():
            for finding in doctor.examine(
                blueprint.runtime.broker,
                blueprint.runtime.settings,
                current_app.config,
                gunicorn=gunicorn,
                url=url,
                headers=read_headers(headers),
            ):
                click.echo(json.dumps(finding._asdict()) if as_json else _shown(finding))
                broken += finding.level == doctor.BROKEN
        if broken:
            raise click.exceptions.Exit(1)


_COLORS = {doctor.OK: "green", doctor.WARNING: "yellow", doctor.BROKEN: "red"}


def _shown(finding: doctor.Finding) -> str:
    mark = click.style(f"{finding.level:8}", fg=_COLORS[finding.level])
    lines = [f"{mark} {finding.name}: {finding.what}"]
    if finding.level != doctor.OK:
        lines += [f"         why: {finding.why}", f"         do:  {finding.advice}"]
    return "\n".join(lines)


def _json_or_text(data: str) -> object:
    try:
        return json.loads(data)
    except ValueError:
        return data
