"""A Celery task that tells a browser how far it is. The worker needs neither the Flask app nor gevent."""

import os
from typing import Any

from celery import Celery

from flask_sse_push import BrokerUnavailable, MessageAnnouncer

celery = Celery("tasks", broker=os.environ.get("CELERY_BROKER_URL", "redis://localhost:6379/1"))

# The app's own URL. It connects with the first publish, so in each process of the pool by itself.
announcer = MessageAnnouncer.from_url(os.environ.get("SSE_PUSH_BROKER_URL", "redis://localhost:6379/0"))


@celery.task(bind=True, acks_late=True, autoretry_for=(BrokerUnavailable,), retry_backoff=True)
def export(self: Any, order: int) -> None:
    """Runs again when the broker was away. With an `id` each event is stored once all the same."""
    for done in (0, 50, 100):
        once = f"{self.request.id}:{done}"
        announcer.publish({"done": done}, "progress", channel=f"order:{order}", id=once)
