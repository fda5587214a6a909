from types import SimpleNamespace

import pytest

from api.deps import Services, history_of, known_state, services
from api.errors import UnknownCustomer
from api.gate import PRINCIPAL
from api.tokens import Principal
from features.codec import History


@pytest.fixture
def given(world, eager):
    return Services(world.store, eager, lambda: None, lambda: None)


@pytest.mark.parametrize(("tenant", "found"), [("retail", "one"), ("corporate", "another"), (None, "one")])
async def test_services_are_those_of_the_tenant(tenant, found):
    tenants = {"retail": "one", "corporate": "another"}
    principal = Principal("teller", tenant, frozenset()) if tenant else None
    connection = SimpleNamespace(
        app=SimpleNamespace(state=SimpleNamespace(tenants=tenants)), scope={PRINCIPAL: principal}
    )
    assert await services(connection) == found


async def test_state_of_a_known_customer(given, customer, world):
    state = await known_state(given, customer)
    assert state.history == world.store._partitions[0].histories[customer]
    assert (await history_of(given, customer)).totals.count == len(world.transactions[customer])


async def test_state_of_an_unknown_customer(given):
    with pytest.raises(UnknownCustomer) as unknown:
        await known_state(given, "nobody-home")
    assert "nobody-home" not in str(unknown.value)
    found = await history_of(given, "nobody-home")
    assert len(found.records) == 0
    assert found.totals == History.empty().totals
