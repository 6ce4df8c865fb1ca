"""The options `--cacert` and `--insecure`: which certificates a command trusts when it opens a URL."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def tls_options(command: Command) -> Command:
    """Adds the options `--cacert FILE` and `--insecure` to a command."""
    insecure = click.option(
        "--insecure", is_flag=True, help="Accept any certificate of URL. Only for tests: anybody may answer."
    )
    cacert = click.option(
        "--cacert",
        metavar="FILE",
        type=click.Path(exists=True, dir_okay=False, readable=True),
        help="Trust the certificates in FILE (PEM) instead of those of the system.",
    )
    return cacert(insecure(command))


def tls_context(cacert: str | None, insecure: bool) -> ssl.SSLContext:
    """Returns the context for connections to an https URL.

    :param cacert: the file of `--cacert`; without it, the certificates of the system are trusted.
    :raises click.BadParameter: if the file contains no certificate.
    """
    try:
        context = ssl.create_default_context(cafile=cacert)
    except (ssl.SSLError, OSError) as error:
        raise click.BadParameter(f"{cacert!r} contains no PEM certificate", param_hint="--cacert") from error
    if insecure:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
