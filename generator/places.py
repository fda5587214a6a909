"""Cities the bank's customers live in and travel to, and how far apart they are."""

from typing import NamedTuple

import numpy as np

from generator.draws import Floats, Ints


class City(NamedTuple):
    """A place with shops in it; `weight` is its share of people or visitors within the country."""

    name: str
    country: str
    latitude: float
    longitude: float
    weight: float


_TABLE = """
FR Paris 48.857 2.352 10|Marseille 43.297 5.381 4|Lyon 45.764 4.836 4|Toulouse 43.605 1.444 3\
|Nice 43.710 7.262 2|Nantes 47.218 -1.554 2|Strasbourg 48.573 7.752 2|Bordeaux 44.838 -0.579 2\
|Lille 50.629 3.057 2|Rennes 48.117 -1.678 1|Dijon 47.322 5.041 1|Limoges 45.833 1.262 1
DE Berlin 52.520 13.405 7|Hamburg 53.551 9.994 4|Munich 48.137 11.575 4|Cologne 50.938 6.960 3\
|Frankfurt 50.110 8.682 3|Leipzig 51.340 12.375 2|Bremen 53.079 8.802 1|Rostock 54.092 12.099 1
ES Madrid 40.417 -3.704 6|Barcelona 41.385 2.173 6|Valencia 39.470 -0.376 3|Seville 37.389 -5.984 2\
|Palma 39.570 2.650 3|Bilbao 43.263 -2.935 1
IT Rome 41.903 12.496 6|Milan 45.464 9.190 5|Naples 40.852 14.268 3|Turin 45.070 7.687 2\
|Florence 43.770 11.256 2|Bari 41.117 16.872 1
GB London 51.507 -0.128 9|Manchester 53.481 -2.242 3|Birmingham 52.486 -1.890 3|Leeds 53.801 -1.549 2\
|Glasgow 55.864 -4.252 2|Bristol 51.455 -2.588 1
NL Amsterdam 52.368 4.904 4|Rotterdam 51.924 4.478 3|Utrecht 52.091 5.122 2|Eindhoven 51.442 5.470 1
BE Brussels 50.850 4.352 4|Antwerp 51.219 4.402 3|Ghent 51.054 3.717 2|Liege 50.633 5.567 1
PT Lisbon 38.722 -9.139 5|Porto 41.158 -8.629 3|Faro 37.019 -7.930 2|Braga 41.545 -8.427 1
CH Geneva 46.204 6.143 2|Zurich 47.377 8.541 2
GR Athens 37.984 23.728 3|Heraklion 35.339 25.144 2
MA Marrakesh 31.630 -8.009 2|Agadir 30.428 -9.598 1
TR Istanbul 41.008 28.978 3|Antalya 36.897 30.713 2
US New York 40.713 -74.006 3|Miami 25.762 -80.192 2|Los Angeles 34.052 -118.244 2
TH Bangkok 13.756 100.502 2|Phuket 7.880 98.392 1
AE Dubai 25.205 55.271 2
RO Bucharest 44.427 26.103 1
BR Sao Paulo -23.551 -46.633 1
"""

HOME_COUNTRIES = ("FR", "DE", "ES", "IT", "GB", "NL", "BE", "PT")
"""Countries with enough cities to be a bank's home."""

CALLING_CODES = {
    "FR": "+33",
    "DE": "+49",
    "ES": "+34",
    "IT": "+39",
    "GB": "+44",
    "NL": "+31",
    "BE": "+32",
    "PT": "+351",
}


def _cities() -> tuple[City, ...]:
    cities = []
    for line in _TABLE.strip().splitlines():
        country, rest = line[:2], line[3:]
        for entry in rest.split("|"):
            name, latitude, longitude, weight = entry.rsplit(" ", 3)
            cities.append(City(name, country, float(latitude), float(longitude), float(weight)))
    return tuple(cities)


CITIES = _cities()


def cities_of_bank(country: str, home: int, abroad: int) -> tuple[tuple[City, ...], int]:
    """Cities a bank knows, its own first.

    Args:
        country: The bank's home.
        home: Cities at home, at most; the heaviest are taken.
        abroad: Cities abroad, at most; the heaviest of each country come first.

    Returns:
        The cities and how many of them are at home.

    >>> cities, at_home = cities_of_bank("PT", 2, 3)
    >>> [city.name for city in cities], at_home
    (['Lisbon', 'Porto', 'Paris', 'Berlin', 'Madrid'], 2)
    """
    domestic = [city for city in CITIES if city.country == country][:home]
    rank: dict[str, int] = {}
    ranked = []
    for city in CITIES:
        if city.country != country:
            rank[city.country] = rank.get(city.country, 0) + 1
            ranked.append((rank[city.country], city))
    foreign = [city for _, city in sorted(ranked, key=lambda pair: pair[0])][:abroad]
    return (*domestic, *foreign), len(domestic)


def scatter(rng: np.random.Generator, cities: tuple[City, ...], city: Ints) -> tuple[Floats, Floats]:
    """Positions around city centres, a few kilometres off, in degrees rounded to about a metre."""
    latitude = np.array([place.latitude for place in cities])[city]
    longitude = np.array([place.longitude for place in cities])[city]
    spread = 0.03
    latitude = latitude + rng.normal(0.0, spread, city.size)
    longitude = longitude + rng.normal(0.0, spread, city.size) / np.cos(np.radians(latitude))
    return np.round(latitude, 5), np.round(longitude, 5)
