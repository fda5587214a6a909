"""How many examples a property is tried with."""

from hypothesis import settings


def examples(count: int) -> settings:
    """So many in the default run, and what the profile asks for where it asks for more than usual.

    >>> examples(60).max_examples <= settings().max_examples
    True
    """
    asked = settings().max_examples
    return settings(max_examples=asked if asked > settings.get_profile("short").max_examples else count)
