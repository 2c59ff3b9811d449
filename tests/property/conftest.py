"""How many examples a property gets: few in `make quick`, four times as many in `make test`, or PROPERTY_EXAMPLES."""

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "pulseline",
    max_examples=int(os.environ.get("PROPERTY_EXAMPLES", "15")),
    deadline=None,  # a shared machine stalls now and then
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("pulseline")
