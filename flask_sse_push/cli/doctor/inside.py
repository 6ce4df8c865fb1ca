"""The checks of the doctor that a running worker can make about itself. The admin page shows the findings."""

from __future__ import annotations

from collections.abc import Iterator

from flask import current_app

from ...web.services import Services
from .broker import examine_broker
from .finding import BROKEN, Finding
from .outbox import examine_outboxes
from .settings import examine_settings


def examine_inside(services: Services) -> Iterator[Finding]:
    """Yields findings about the settings, the broker and the outboxes. Blocks for some calls."""
    settings = services.settings
    found = list(examine_settings(settings, current_app.config))
    yield from found
    around = all(each.level != BROKEN for each in found)
    for finding in examine_broker(services.publishing.broker, settings, around=around):
        yield finding.naming(settings.broker_key)
    yield from examine_outboxes()
