"""The bank as others use it: settings in, events out, truth on the side."""

from collections.abc import Iterator
from functools import cached_property
from types import MappingProxyType

from generator.events import BankEvent, Leavers
from generator.lifetimes import Lifetimes
from generator.messages import customer_id
from generator.profiles import Profiles
from generator.settings import BankSettings
from generator.simulation import Simulation


class Bank:
    """A generated bank.

    The stream depends on the settings alone (and on numpy's random generators, which keep their
    streams within a release): two banks with equal settings emit the same events, byte for byte.

    >>> from itertools import islice
    >>> bank = Bank(BankSettings(customers=10, days=3))
    >>> [event.topic for event in islice(bank.events(), 2)]
    ['customers', 'customers']

    Attributes:
        settings: What the bank is made of.
    """

    def __init__(self, settings: BankSettings) -> None:
        self.settings = settings

    def events(self) -> Iterator[BankEvent]:
        """All events in order of event time, from the beginning at every call.

        Memory is bounded by customers, one day of events and what is pending, not by the span.
        """
        return Simulation(self.settings).run()

    @cached_property
    def leavers(self) -> Leavers:
        """Who leaves within the span, by customer id."""
        lifetimes = Lifetimes.draw(self.settings, Profiles.draw(self.settings))
        found = lifetimes.leavers(self.settings)
        return MappingProxyType({customer_id(customer): leaver for customer, leaver in found.items()})
