"""From rows to messages as the contract says them."""

from collections.abc import Iterator
from datetime import UTC, datetime

import numpy as np

from generator.draws import Ints
from generator.habits import EXTERNAL_FIRST, SAVINGS_FIRST
from generator.merchants import CATEGORIES, ONLINE
from generator.places import CALLING_CODES
from generator.profiles import SEGMENTS
from generator.reports import SOURCES, Label
from generator.rows import FIELDS, IS_CARD, NONE, Kind, Rows
from generator.world import World

SCHEMA_VERSION = 1

# Odd multipliers spread neighbouring numbers over the range and never map two to one.
_DEVICE_SPREAD, _DEVICE_MASK = 0x9E3779B1, 0xFFFFFFFFFF
_CARD_SPREAD, _CARD_MASK = 0x85EBCA6B, 0xFFFFFFFFF
_CARDS_PER_CUSTOMER = 64

_REVERSIBLE = Kind.REFUND


def customer_id(customer: int) -> str:
    """Customer id in messages.

    >>> customer_id(123)
    'c0000123'
    """
    return f"c{customer:07d}"


def counterparty_id(counterparty: int) -> str:
    """Account id of a counterparty: ``a`` inside the bank, ``s`` savings, ``x`` elsewhere.

    >>> [counterparty_id(number) for number in (5, SAVINGS_FIRST + 5, EXTERNAL_FIRST + 5)]
    ['a0000005', 's0000005', 'x00000005']
    """
    if counterparty >= EXTERNAL_FIRST:
        return f"x{counterparty - EXTERNAL_FIRST:08d}"
    if counterparty >= SAVINGS_FIRST:
        return f"s{counterparty - SAVINGS_FIRST:07d}"
    return f"a{counterparty:07d}"


def ip_address(number: int) -> str:
    """Dotted IPv4 address.

    >>> ip_address((10 << 24) + 258)
    '10.0.1.2'
    """
    return f"{number >> 24}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def money(minor: int) -> str:
    """Amount of a currency with two decimals.

    >>> money(1234), money(-5), money(100)
    ('12.34', '-0.05', '1.00')
    """
    sign, minor = ("-", -minor) if minor < 0 else ("", minor)
    return f"{sign}{minor // 100}.{minor % 100:02d}"


def moments(time_ms: Ints) -> list[str]:
    """RFC 3339 times in UTC, with milliseconds and offset.

    >>> moments(np.array([0]))
    ['1970-01-01T00:00:00.000+00:00']
    """
    return [text + "+00:00" for text in np.datetime_as_string(time_ms.astype("datetime64[ms]")).tolist()]


class Messages:
    """Writes the messages of one bank."""

    def __init__(self, world: World) -> None:
        self._world = world
        settings, merchants = world.settings, world.merchants
        # Letters of its own for every seed: two banks can share a topic and no id clashes.
        self._tag = _letters(settings.seed)
        self._card_salt = (settings.seed * 7_919 + 17) & _CARD_MASK
        self._device_salt = (settings.seed * 104_729 + 29) & _DEVICE_MASK
        self._country = settings.country
        self._merchant = [
            {
                "merchant_id": f"m{index:06d}",
                "merchant_category": CATEGORIES[category].mcc,
                "merchant_country": country,
            }
            for index, (category, country) in enumerate(
                zip(merchants.category.tolist(), merchants.country, strict=True)
            )
        ]
        self._place: list[dict[str, float] | None] = [
            None if city == ONLINE else {"latitude": latitude, "longitude": longitude}
            for city, latitude, longitude in zip(
                merchants.city.tolist(),
                merchants.latitude.tolist(),
                merchants.longitude.tolist(),
                strict=True,
            )
        ]
        self._kind: list[dict[str, object]] = [_fields(kind) for kind in Kind]
        self._is_card: list[bool] = IS_CARD.tolist()

    def transaction_id(self, number: int) -> str:
        """Id of the n-th transaction of the bank."""
        return f"t-{self._tag}-{number:09d}"

    def transactions(self, rows: Rows, balance_after: Ints, first_number: int) -> Iterator[dict[str, object]]:
        """Messages of booked rows, in their order.

        Args:
            rows: Booked rows of a day.
            balance_after: Balance after each. Shape: (rows,).
            first_number: Number of the first transaction.
        """
        tag, currency = self._tag, self._world.settings.currency
        merchants, places, kinds, is_card = self._merchant, self._place, self._kind, self._is_card
        card = self._world.habits.card[rows["customer"]]
        columns = zip(
            moments(rows["time_ms"]),
            rows["customer"].tolist(),
            rows["kind"].tolist(),
            rows["amount_minor"].tolist(),
            rows["merchant"].tolist(),
            rows["counterparty"].tolist(),
            rows["device"].tolist(),
            rows["ip"].tolist(),
            card.tolist(),
            balance_after.tolist(),
            strict=True,
        )
        for offset, (time, customer, kind, amount, merchant, party, device, ip, cards, balance) in enumerate(
            columns
        ):
            message: dict[str, object] = {
                "schema_version": SCHEMA_VERSION,
                "transaction_id": f"t-{tag}-{first_number + offset:09d}",
                "customer_id": f"c{customer:07d}",
                "account_id": f"a{customer:07d}",
                "event_time": time,
                "amount": f"{amount // 100}.{amount % 100:02d}",
                "currency": currency,
                **kinds[kind],
            }
            if merchant != NONE:
                message.update(merchants[merchant])
                place = places[merchant]
                if place is not None and kind != _REVERSIBLE:
                    message.update(place)
            if is_card[kind]:
                number = (customer * _CARDS_PER_CUSTOMER + cards) * _CARD_SPREAD + self._card_salt
                message["card_token"] = f"k{number & _CARD_MASK:09x}"
            if party != NONE:
                message["counterparty_id"] = counterparty_id(party)
            if device != NONE:
                message["device_id"] = f"d{(device * _DEVICE_SPREAD + self._device_salt) & _DEVICE_MASK:010x}"
            if ip != NONE:
                message["ip_address"] = ip_address(ip)
            message["balance_after"] = money(balance)
            yield message

    def label(self, label: Label) -> dict[str, object]:
        """Message of a label."""
        message: dict[str, object] = {
            "schema_version": SCHEMA_VERSION,
            "label_id": f"l-{self._tag}-{label.number:08d}",
            "customer_id": customer_id(label.customer),
        }
        if label.transaction != NONE:
            message["transaction_id"] = self.transaction_id(label.transaction)
        message["label_time"] = moments(np.array([label.time_ms]))[0]
        message["label"] = label.label
        message["source"] = SOURCES[label.source]
        return message

    def customer(self, customer: int, updated_ms: int) -> dict[str, object]:
        """Message of a customer's master data as they are now; all contact data is made up."""
        world, profiles = self._world, self._world.profiles
        opened = profiles.opening_date(world.settings, customer)
        return {
            "schema_version": SCHEMA_VERSION,
            "customer_id": customer_id(customer),
            "updated_at": datetime.fromtimestamp(updated_ms / 1000, UTC).isoformat(timespec="milliseconds"),
            "opened_on": opened.isoformat(),
            "birth_year": int(profiles.birth_year[customer]),
            "country": self._country,
            "segment": SEGMENTS[int(profiles.segment[customer])].name,
            "income": money(int(profiles.income[customer]) * 100),
            "name": f"Customer {customer}",
            "email": f"customer.{customer}@example.com",
            # No subscriber's number begins like this; and 13 digits could be mistaken for a card.
            "phone": f"{CALLING_CODES[self._country]} 0{int(profiles.phones[customer]) % 10} {customer:07d}",
        }


def _fields(kind: Kind) -> dict[str, object]:
    """Fields that follow from the kind; those without a value are left out."""
    return {name: value for name, value in FIELDS[kind]._asdict().items() if value is not None}


def _letters(seed: int) -> str:
    """A number in letters only: at least four, different for every number.

    >>> _letters(0), _letters(7), _letters(26)
    ('aaaa', 'aaah', 'aaba')
    """
    text = ""
    while seed or len(text) < 4:
        seed, digit = divmod(seed, 26)
        text = chr(ord("a") + digit) + text
    return text
