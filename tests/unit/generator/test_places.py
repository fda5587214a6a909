import numpy as np
import pytest

from generator.places import CALLING_CODES, CITIES, HOME_COUNTRIES, cities_of_bank, scatter


@pytest.mark.parametrize("country", HOME_COUNTRIES)
def test_a_home_has_cities_and_a_calling_code(country):
    cities, at_home = cities_of_bank(country, 12, 20)
    assert at_home >= 2
    assert {city.country for city in cities[:at_home]} == {country}
    assert country not in {city.country for city in cities[at_home:]}
    assert country in CALLING_CODES


def test_shops_lie_in_their_city():
    city = np.arange(len(CITIES)).repeat(50)
    latitude, longitude = scatter(np.random.default_rng(0), CITIES, city)
    assert np.abs(latitude - np.array([CITIES[index].latitude for index in city])).max() < 0.2
    assert np.abs(longitude - np.array([CITIES[index].longitude for index in city])).max() < 0.4
