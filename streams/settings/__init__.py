"""Every setting of Pulseline in one frozen record, read from flags, `PULSELINE_*` and a `.env` file.

An unknown name, a bad value and settings that contradict each other stop the start: InvalidSettings says
which, and what is accepted.
"""

from streams.settings.credentials import kafka_options, redis_options
from streams.settings.forms import mask
from streams.settings.record import Settings, accepts, is_secret, names, setting_name
from streams.settings.sources import PREFIX, gather, read_dotenv

__all__ = [
    "PREFIX",
    "Settings",
    "accepts",
    "gather",
    "is_secret",
    "kafka_options",
    "mask",
    "names",
    "read_dotenv",
    "redis_options",
    "setting_name",
]
