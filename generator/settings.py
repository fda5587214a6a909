"""What a generated bank is made of."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from generator.events import ALL_TYPOLOGIES, TYPOLOGIES
from generator.places import HOME_COUNTRIES
from schemas.errors import ConfigError
from schemas.money import CURRENCIES, minor_unit_scale

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
MINUTE_MS = 60_000

_MIN_CUSTOMERS, _MAX_CUSTOMERS = 10, 10_000_000
_RATES = ("fraud_rate", "churn_rate", "join_rate", "dormant_rate", "unreported_rate", "review_rate")
_MIN_MERCHANTS, _MAX_MERCHANTS = 60, 1_000_000


@dataclass(frozen=True, slots=True)
class BankSettings:
    """Size, span and rates of a generated bank; equal settings give an identical stream.

    Attributes:
        customers: Everyone who is a customer at any time of the span.
        seed: Not negative; another seed is another bank.
        start: Midnight UTC of the first day.
        days: Length of the span; nothing is emitted at or after ``start + days``.
        merchants: Shops, online shops and cash machines; ``None`` derives it from ``customers``.
        fraud_rate: Share of customers drawn into a fraud in 30 days. The default makes about
            0.4 % of the transactions fraud.
        typologies: Ways of fraud that occur, of `ALL_TYPOLOGIES`; the others' share goes to these.
        typology_from: First day of a way of fraud, by typology; one not named occurs from day 0.
            Merchants are compromised from that day, and the copied cards misused a week or two later.
        churn_rate: Share of customers who leave in 90 days.
        join_rate: Share of customers who joined, per 90 days of the span.
        dormant_rate: Share of customers who go quiet for some weeks and come back, per 90 days.
        country: ISO 3166 alpha-2 code of the bank's home, one of `HOME_COUNTRIES`.
        currency: ISO 4217 code of every account; one with two decimals.
        label_delay_days: Median time from a fraud to its label.
        unreported_rate: Share of fraud episodes nobody ever reports.
        review_rate: Share of genuine transactions an analyst looks at and labels genuine.
    """

    customers: int = 2_000
    seed: int = 7
    start: datetime = datetime(2025, 9, 1, tzinfo=UTC)
    days: int = 120
    merchants: int | None = None
    fraud_rate: float = 0.07
    typologies: tuple[str, ...] = TYPOLOGIES
    typology_from: Mapping[str, int] = field(default_factory=dict)
    churn_rate: float = 0.05
    join_rate: float = 0.05
    dormant_rate: float = 0.04
    country: str = "FR"
    currency: str = "EUR"
    label_delay_days: float = 5.0
    unreported_rate: float = 0.04
    review_rate: float = 0.0008

    def __post_init__(self) -> None:
        """Refuse what no bank could be made of.

        Raises:
            ConfigError: A setting is out of its range; the message names it.
        """
        if not _MIN_CUSTOMERS <= self.customers <= _MAX_CUSTOMERS:
            raise ConfigError(f"customers must be {_MIN_CUSTOMERS} to {_MAX_CUSTOMERS}, not {self.customers}")
        if self.merchants is not None and not _MIN_MERCHANTS <= self.merchants <= _MAX_MERCHANTS:
            raise ConfigError(f"merchants must be {_MIN_MERCHANTS} to {_MAX_MERCHANTS}, not {self.merchants}")
        if self.seed < 0:
            raise ConfigError(f"seed must not be negative: {self.seed}")
        if self.start.tzinfo is None or self.start.utcoffset() != timedelta(0):
            raise ConfigError(f"start must be in UTC and say so: {self.start.isoformat()}")
        if self.start != self.start.replace(hour=0, minute=0, second=0, microsecond=0):
            raise ConfigError(f"start must be midnight: {self.start.isoformat()}")
        if not 1 <= self.days <= 36_500:
            raise ConfigError(f"days must be 1 to 36500, not {self.days}")
        for name in _RATES:
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ConfigError(f"{name} must be in [0, 1), not {value}")
        unknown = [name for name in (*self.typologies, *self.typology_from) if name not in ALL_TYPOLOGIES]
        if unknown:
            raise ConfigError(f"typologies must be of {', '.join(ALL_TYPOLOGIES)}, not {', '.join(unknown)}")
        if not 0.1 <= self.label_delay_days <= 60:
            raise ConfigError(f"label_delay_days must be 0.1 to 60, not {self.label_delay_days}")
        if self.country not in HOME_COUNTRIES:
            raise ConfigError(f"country must be one of {', '.join(HOME_COUNTRIES)}, not {self.country!r}")
        if self.currency not in CURRENCIES or minor_unit_scale(self.currency) != 100:
            raise ConfigError(f"currency must be an ISO 4217 code with two decimals, not {self.currency!r}")

    @property
    def merchant_count(self) -> int:
        """Merchants, given or derived: one for four customers.

        >>> BankSettings(customers=2000).merchant_count, BankSettings(merchants=80).merchant_count
        (500, 80)
        """
        if self.merchants is not None:
            return self.merchants
        return min(max(self.customers // 4, 240), _MAX_MERCHANTS)

    @property
    def start_ms(self) -> int:
        """First moment of the span, epoch milliseconds."""
        return int(self.start.timestamp()) * 1000

    @property
    def end_ms(self) -> int:
        """First moment after the span, epoch milliseconds."""
        return self.start_ms + self.days * DAY_MS
