"""The draws of hypothesis: the same in every run and on every machine, so that a change is judged by what it
changes. `make soak` looks further, with new draws each time (profile "exploring").
"""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("reproducible", derandomize=True, print_blob=True)
settings.register_profile("exploring", print_blob=True)
settings.load_profile("reproducible")
