"""Amounts in minor units, by the currency's own number of decimals."""

from decimal import ROUND_HALF_EVEN, Decimal
from functools import lru_cache

from schemas.errors import EventError

MAX_AMOUNT_MINOR = 10**15
"""Largest accepted amount, in minor units: 10,000 billion euro. Larger is a mistake, not a payment."""

_DEFAULT_EXPONENT = 2
# ISO 4217 minor units that are not 2. Source: ISO 4217:2015, table A.1.
_EXPONENTS = {
    **dict.fromkeys(
        "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF".split(),
        0,
    ),
    **dict.fromkeys("BHD IQD JOD KWD LYD OMR TND".split(), 3),
    "CLF": 4,
    "UYW": 4,
}
CURRENCIES = frozenset(
    """AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BOV BRL BSD BTN BWP
    BYN BZD CAD CDF CHE CHF CHW CLF CLP CNY COP COU CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR
    FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HRK HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES
    KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR
    MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF
    SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS
    UAH UGX USD USN UYI UYU UYW UZS VED VES VND VUV WST XAF XCD XCG XOF XPF XXX YER ZAR ZMW ZWG""".split()
)
"""Active ISO 4217 codes, with HRK (replaced in 2023, still in histories) and XXX (no currency)."""


@lru_cache(maxsize=256)
def minor_unit_scale(currency: str) -> Decimal:
    """Minor units in one major unit.

    >>> minor_unit_scale("EUR"), minor_unit_scale("JPY"), minor_unit_scale("KWD")
    (Decimal('1E+2'), Decimal('1'), Decimal('1E+3'))
    """
    return Decimal(1).scaleb(_EXPONENTS.get(currency, _DEFAULT_EXPONENT))


def to_minor(amount: Decimal, currency: str) -> int:
    """Amount in integer minor units, rounded half to even where it has more decimals.

    Raises:
        EventError: The amount rounds to nothing or is beyond `MAX_AMOUNT_MINOR`.

    >>> to_minor(Decimal("12.345"), "EUR"), to_minor(Decimal("12.345"), "KWD")
    (1234, 12345)
    """
    # Compared before scaling: an exponent of 308 would make an integer of 300 digits.
    if amount > MAX_AMOUNT_MINOR:
        raise EventError("amount_too_large", f"amount is beyond {MAX_AMOUNT_MINOR} minor units")
    minor = int((amount * minor_unit_scale(currency)).to_integral_value(ROUND_HALF_EVEN))
    if minor <= 0:
        raise EventError("amount_not_positive", f"amount rounds to 0 in {currency}")
    if minor > MAX_AMOUNT_MINOR:
        raise EventError("amount_too_large", f"amount is beyond {MAX_AMOUNT_MINOR} minor units")
    return minor


def to_major(amount_minor: int, currency: str) -> Decimal:
    """Amount in major units, for people.

    >>> to_major(1234, "EUR")
    Decimal('12.34')
    """
    return amount_minor / minor_unit_scale(currency)
