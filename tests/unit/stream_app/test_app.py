import pytest

from schemas.errors import ConfigError
from stream_app.app import _claim_group, _log_check
from stream_app.settings import WorkerSettings


class Store:
    def __init__(self, group=""):
        self.kept_by = group
        self.claims = []

    async def group(self):
        return self.kept_by

    async def set_group(self, group):
        self.kept_by = group

    async def claim_entities(self, names):
        self.claims.append(("entities", names))

    async def claim_topology(self, partitions, cluster):
        self.claims.append(("topology", partitions, cluster))


class Admin:
    def __init__(self, **members):
        self.members = members

    async def group_members(self, group):
        return self.members.get(group, 0)

    async def source_partitions(self):
        return 4

    async def cluster_id(self):
        return "log"


@pytest.mark.parametrize("holder", ["", "mine", "theirs"])
async def test_state_that_nobody_keeps_any_more_is_taken(holder):
    store = Store(holder)
    await _claim_group(WorkerSettings(group="mine"), store, Admin(mine=2))
    assert store.kept_by == "mine"


async def test_state_that_another_group_keeps_is_refused():
    store = Store("theirs")
    with pytest.raises(ConfigError, match="group 'theirs', of which 2 workers are running"):
        await _claim_group(WorkerSettings(group="mine"), store, Admin(theirs=2))
    assert store.kept_by == "theirs"


async def test_each_look_at_the_log_says_which_entities_are_counted_and_first():
    store = Store()
    check = _log_check(store, Admin(), "device,merchant")
    for _ in range(2):
        await check()
    assert store.claims == [("entities", ["device", "merchant"]), ("topology", 4, "log")] * 2
