import pytest

from schemas.customer import CONTACT_FIELDS, Customer, Profile
from schemas.errors import EventError
from schemas.parse import dump, parse_message

CUSTOMER = {
    "customer_id": "c-1",
    "updated_at": "2026-03-01T09:30:00Z",
    "opened_on": "2020-02-29",
    "birth_year": 1980,
    "country": "FR",
    "segment": "retail",
    "income": "30000",
    "name": "A. Person",
    "email": "a@example.org",
    "phone": "+33 1 99 00 00 00",
    "address": "1 Some Street",
}


def test_profile_keeps_everything_but_contact_data():
    customer = parse_message(Customer, dump(CUSTOMER))
    profile = Profile.model_validate(customer.model_dump())

    assert set(Customer.model_fields) - set(Profile.model_fields) == CONTACT_FIELDS
    assert profile.income == 30000
    assert "Person" not in profile.model_dump_json()


@pytest.mark.parametrize(
    ("field", "value"),
    [("birth_year", 1879), ("income", -1), ("income", "NaN"), ("country", "France"), ("opened_on", "soon")],
)
def test_wrong_profile_is_refused_by_field(field, value):
    with pytest.raises(EventError) as refused:
        parse_message(Customer, dump({**CUSTOMER, field: value}))

    assert str(refused.value).startswith(f"{field}: ")
