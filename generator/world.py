"""The bank on one day: everything that stays, and everything that changes."""

from dataclasses import dataclass

import numpy as np

from generator.draws import Bools, Floats, Ints, Stream, generator_for
from generator.habits import Habits
from generator.ledger import Ledger
from generator.lifetimes import Lifetimes
from generator.merchants import Merchants
from generator.profiles import Profiles
from generator.rhythm import Day
from generator.rows import Agenda
from generator.settings import BankSettings

AT_HOME = -1


@dataclass(slots=True)
class Whereabouts:
    """Where customers are when they are not at home, and what is new in their lives.

    Attributes:
        away_city: City of the present or next journey, place in `Merchants.cities`. Shape: (n,).
        away_from: Its first day. Shape: (n,).
        away_to: First day at home again. Shape: (n,).
        moved_on: Day of the last move, long past for most. Shape: (n,).
        phone_since: Day of the last new phone, long past for most. Shape: (n,).
    """

    away_city: Ints
    away_from: Ints
    away_to: Ints
    moved_on: Ints
    phone_since: Ints

    @classmethod
    def at_home(cls, customers: int) -> "Whereabouts":
        """Nobody travels and nothing is new."""
        never = np.full(customers, -10_000)
        return cls(np.full(customers, AT_HOME), never.copy(), never.copy(), never.copy(), never.copy())

    def away(self, day: Day) -> Bools:
        """Who is on a journey. Shape: (n,)."""
        return (self.away_from <= day.index) & (day.index < self.away_to)


@dataclass(slots=True)
class World:
    """All state of a generated bank. Its size depends on the customers, not on the days."""

    settings: BankSettings
    merchants: Merchants
    profiles: Profiles
    lifetimes: Lifetimes
    habits: Habits
    ledger: Ledger
    whereabouts: Whereabouts
    agenda: Agenda

    @classmethod
    def draw(cls, settings: BankSettings) -> "World":
        """The bank as it is before the first day."""
        merchants = Merchants(settings)
        profiles = Profiles.draw(settings)
        return cls(
            settings=settings,
            merchants=merchants,
            profiles=profiles,
            lifetimes=Lifetimes.draw(settings, profiles),
            habits=Habits.draw(settings, profiles, merchants),
            ledger=Ledger(settings, profiles),
            whereabouts=Whereabouts.at_home(settings.customers),
            agenda=Agenda(settings.start_ms, settings.days),
        )

    def random(self, stream: Stream, day: Day) -> np.random.Generator:
        """Random numbers of one purpose on one day. Number 0 of a purpose is spent before the first day."""
        return generator_for(self.settings.seed, stream, day.index + 1)

    def city_of(self, day: Day) -> Ints:
        """Where each customer is on a day. Shape: (n,)."""
        return np.where(self.whereabouts.away(day), self.whereabouts.away_city, self.habits.city)

    def payment_scale(self, who: Ints, ease: Floats) -> Floats:
        """Size of a customer's payments: what they can afford counts, but not fully. Shape: as `who`."""
        scale: Floats = self.habits.spend_scale[who] * np.sqrt(ease[who])
        return scale
