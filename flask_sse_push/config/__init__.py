"""The settings of one registered blueprint, and the channel policies that they give.

`Settings.load` reads and checks all keys. `Settings.policies` then tells for each channel how much of its
history is kept, whether everybody may listen, whether its users are counted, and whether its events are sent
in batches. This package imports nothing but the errors. The only file that it opens is the one that
`SSE_PUSH_CHANNELS_FILE` names.
"""

from __future__ import annotations

from .channel_policies import ChannelPolicies as ChannelPolicies
from .channel_policies import ChannelPolicy as ChannelPolicy
from .settings import KEY_PREFIX as KEY_PREFIX
from .settings import REDIS_KEYS as REDIS_KEYS
from .settings import SHARE_BROKER as SHARE_BROKER
from .settings import Settings as Settings
from .values import MAX_BATCH_MS as MAX_BATCH_MS
from .values import without_secret as without_secret
