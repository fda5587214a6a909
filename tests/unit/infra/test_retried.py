import asyncio

import pytest

from infra.event_mark import DiskError
from infra.retried import retried
from schemas.errors import DependencyError


@pytest.mark.parametrize(("error", "name"), [(DiskError, "disk"), (DependencyError, "database")])
async def test_a_call_that_needs_disk_and_database_is_counted_for_the_one_that_is_away(error, name):
    counted, failures = [], [error("away")]

    async def call():
        if failures:
            raise failures.pop()
        return "done"

    waits = {"first_s": 0.001, "most_s": 0.001, "give_up_s": 10}
    assert await retried("database", call, asyncio.Event(), counted.append, **waits) == "done"
    assert counted == [name]
