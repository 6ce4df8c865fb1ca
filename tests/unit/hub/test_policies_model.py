"""The delivery promise while channel policies change under load.

Two publishers with different policies take turns, as during a rolling restart, and workers with others
start. What the broker really has counts: no stream loses an event silently, and none gets an `sse.reset` for
events that the broker still has. The steps and the account are those of test_hub_model.py.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from flask_sse_push.config.channel_policies import ChannelRule
from tests.support.simulation import NAMES
from tests.support.stepping import SETTINGS, Worker
from tests.support.walk import explore

from .test_hub_model import HubWalk

#: How much of a history a policy may keep: none of the values is that of all other settings.
SIZES, TIMES, BYTES = (1, 2, 4, 8), (2.0, 25.0, 100.0), (None, None, 12, 40)

pytestmark = pytest.mark.usefixtures("simulation")


class PolicyWalk(HubWalk):
    """The steps of the hub's model; the policies of publishers and workers change too."""

    steps: ClassVar[Mapping[str, float]] = {
        **HubWalk.steps,
        "publish": 25,
        "other_publisher": 8,
        "deploy_publisher": 2,
        "deploy_worker": 2,
        "forget_all": 0.1,
        "fail_over": 0.3,
        "tamper": 0.0,
    }
    #: How many resets the streams of all walks got.
    resets: ClassVar[Counter[str]] = Counter()

    def __init__(self, chance: random.Random) -> None:
        super().__init__(chance)
        self._publishers = [SETTINGS.policies, self._settings().policies]

    def _settings(self) -> Any:
        def rule(name: str) -> ChannelRule:
            return ChannelRule(name, self.pick(SIZES), self.pick(TIMES), self.pick(BYTES))

        rules = tuple(rule(name) for name in self.chance.sample(NAMES, 3))
        return replace(SETTINGS, channels=rules)

    def other_publisher(self) -> None:
        self.world._home._policies = self.pick(self._publishers)

    def deploy_publisher(self) -> None:
        self._publishers[self.chance.randrange(2)] = self._settings().policies

    def deploy_worker(self) -> None:
        """Starts a worker anew, with other policies. Its clients come back later."""
        number = self.chance.randrange(2)
        stopped = self.world.workers[number]
        for client in self.world.clients:
            if client.worker is stopped:
                client.leave()
        for threads in stopped.threads:
            threads.lose()
        self.world.workers[number] = Worker(self.world.brokers, self._settings())

    def go(self, steps: int) -> None:
        super().go(steps)
        self.resets["all"] += sum(client.stream.resets for client in self.world.clients if client.worker)


@pytest.mark.parametrize("steps", [40, 160])
def test_resets_are_exact_while_policies_change(steps: int) -> None:
    PolicyWalk.resets.clear()
    explore(PolicyWalk, steps, total=10_000)
    assert PolicyWalk.resets["all"] > 50  # events were gone, by size, time or bytes
