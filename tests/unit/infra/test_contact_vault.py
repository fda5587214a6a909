import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.contact_vault import ContactVault, LocalMasterKeys
from infra.key_ring import KeyRing
from schemas.customer import SealedContact
from schemas.errors import HistoryError

OLD = "old:" + base64.b64encode(b"o" * 32).decode()
NEW = "new:" + base64.b64encode(b"n" * 32).decode()
CONTACT = {"name": "Some Body", "email": "some.body@example.org", "phone": "+33 1 23 45"}


def vault(text: str = OLD, space: str = "tg") -> ContactVault:
    return ContactVault(LocalMasterKeys(KeyRing.of_text(text)), space)


@given(
    st.text(min_size=1, max_size=64),
    st.dictionaries(st.sampled_from(["name", "email", "phone", "address"]), st.text(max_size=256)),
)
async def test_what_was_sealed_is_opened(customer_id, contact):
    sealed = await vault().seal(customer_id, contact)
    again = SealedContact.model_validate_json(sealed.model_dump_json())
    assert await vault().open(customer_id, again) == contact


async def test_nothing_of_it_is_in_clear():
    text = (await vault().seal("c-1", CONTACT)).model_dump_json()
    for value in CONTACT.values():
        assert value not in text
        assert base64.b64encode(value.encode()).decode().rstrip("=") not in text


async def test_no_two_are_alike():
    sealed = [await vault().seal("c-1", {"name": "same", "email": "same"}) for _ in range(200)]
    values = [base64.b64decode(v) for s in sealed for v in (*s.fields.values(), s.wrapped)]
    assert len({v[:12] for v in values}) == len(values)
    assert len(set(values)) == len(values)


async def test_it_opens_for_its_customer_field_and_space_only():
    mine, other = await vault().seal("c-1", CONTACT), await vault().seal("c-2", CONTACT)
    swapped = [
        mine.model_copy(update={"fields": other.fields}),
        mine.model_copy(update={"wrapped": other.wrapped}),
        mine.model_copy(update={"fields": {**mine.fields, "name": mine.fields["email"]}}),
        other,
    ]
    for sealed in swapped:
        with pytest.raises(HistoryError, match="another customer's"):
            await vault().open("c-1", sealed)
    with pytest.raises(HistoryError):
        await vault(space="tgc").open("c-1", mine)


async def test_no_bit_can_be_flipped():
    sealed = await vault().seal("c-1", {"email": "a@b.example"})
    raw = {"fields": base64.b64decode(sealed.fields["email"]), "wrapped": base64.b64decode(sealed.wrapped)}
    for part, content in raw.items():
        for bit in range(len(content) * 8):
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            text = base64.b64encode(flipped).decode()
            changed = sealed.model_copy(update={part: {"email": text} if part == "fields" else text})
            with pytest.raises(HistoryError):
                await vault().open("c-1", changed)


@pytest.mark.parametrize("text", ["", "AA==", "not base64!"])
async def test_what_is_no_sealed_text_is_refused(text):
    sealed = await vault().seal("c-1", CONTACT)
    for changed in ({"wrapped": text}, {"fields": {"name": text}}):
        with pytest.raises(HistoryError):
            await vault().open("c-1", sealed.model_copy(update=changed))


async def test_a_new_master_key_seals_and_old_ones_still_open():
    before = await vault(OLD).seal("c-1", CONTACT)
    both = vault(f"{OLD},{NEW}")
    after = await both.seal("c-1", CONTACT)
    assert (before.key, after.key) == ("old", "new")
    assert await both.open("c-1", before) == await both.open("c-1", after) == CONTACT
    with pytest.raises(HistoryError, match="the master key old, which is not given"):
        await vault(NEW).open("c-1", before)


async def test_rewrapped_it_needs_the_new_master_key_only():
    before = await vault(OLD).seal("c-1", CONTACT)
    after = await vault(f"{OLD},{NEW}").rewrap("c-1", before)
    assert after.fields == before.fields
    assert await vault(NEW).open("c-1", after) == CONTACT
