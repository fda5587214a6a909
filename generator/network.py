"""Devices and addresses people reach the bank from; every address is one nobody can own."""

import numpy as np

from generator.draws import Ints

# Private, shared and benchmark ranges (RFC 1918, 6598, 2544): no person's address is in them.
_HOME = 10 << 24
_CARRIER = (100 << 24) | (64 << 16)
_GUEST = (172 << 24) | (16 << 16)
_HOSTED = (198 << 24) | (18 << 16)


def home_ips(rng: np.random.Generator, n: int) -> Ints:
    """Addresses of households: one each."""
    return _HOME + rng.integers(0, 1 << 24, n)


def guest_ips(rng: np.random.Generator, n: int) -> Ints:
    """Addresses of hotels, offices and cafes."""
    return _GUEST + rng.integers(0, 1 << 20, n)


def hosted_ips(rng: np.random.Generator, n: int) -> Ints:
    """Addresses of tunnels and rented servers: few, and shared by the honest and the others."""
    return _HOSTED + rng.integers(0, 1 << 10, n)


class Carrier:
    """A mobile network: many phones behind few addresses."""

    def __init__(self, customers: int) -> None:
        self._size = customers // 25 + 8

    def ips(self, rng: np.random.Generator, n: int) -> Ints:
        """Addresses phones had at some moment."""
        return _CARRIER + rng.integers(0, self._size, n)


class Devices:
    """Hands out device numbers from a first one on; a number is never given twice."""

    def __init__(self, first: int) -> None:
        self._next = first

    def new(self, n: int) -> Ints:
        """Numbers of devices never seen before."""
        first = self._next
        self._next += n
        return np.arange(first, first + n)
