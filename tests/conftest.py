"""Settings that every test shares."""

from hypothesis import settings

# `pytest --hypothesis-profile=thorough` is what CI runs at night.
settings.register_profile("short", max_examples=200, deadline=None)
settings.register_profile("thorough", max_examples=2000, deadline=None, print_blob=True)
settings.load_profile("short")
