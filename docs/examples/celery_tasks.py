"""A Celery task that shows its progress in a browser. The worker needs neither the Flask app nor gevent."""

import os
from typing import Any

from celery import Celery

from flask_sse_push import BrokerUnavailable, MessageAnnouncer

celery = Celery("tasks", broker=os.environ.get("CELERY_BROKER_URL", "redis://localhost:6379/1"))

# The URL of the app's broker. The announcer connects at the first publish, separately in each process of the
# pool.
announcer = MessageAnnouncer.from_url(os.environ.get("SSE_PUSH_BROKER_URL", "redis://localhost:6379/0"))


@celery.task(bind=True, acks_late=True, autoretry_for=(BrokerUnavailable,), retry_backoff=True)
def export(self: Any, order: int) -> None:
    """Runs again if the broker was unavailable. The broker stores each event once, because each has an
    `id`."""
    for done in (0, 50, 100):
        once = f"{self.request.id}:{done}"
        announcer.publish({"done": done}, "progress", channel=f"order:{order}", id=once)
