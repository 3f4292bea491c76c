"""The draws of hypothesis: the same in every run and on every machine, so that a change is judged by what it
changes. `make soak` looks further, with new draws each time (profile "exploring").
"""

from __future__ import annotations

import gc

from hypothesis import settings

settings.register_profile("reproducible", derandomize=True, print_blob=True)
settings.register_profile("exploring", print_blob=True)
settings.load_profile("reproducible")

# By default a tenth of the time of the exports goes to looking for garbage in what the modules hold for good.
gc.set_threshold(10_000, 10, 10)
