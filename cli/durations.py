"""Options that are lengths of time: a delay, a horizon, for how long a search may go on."""

from features.definitions import DAY_MS
from infra.cells import duration_ms
from models.tuning import Budget
from schemas.errors import ConfigError


def days_too(delay: str | None) -> str | None:
    """A length of time; a bare number is days.

    >>> days_too("7"), days_too("12h")
    ('7d', '12h')
    """
    return f"{delay}d" if delay is not None and delay.isdigit() else delay


def delay_ms(delay: str, option: str = "--label-delay") -> int:
    """Milliseconds of an option that is a length of time.

    Raises:
        ConfigError: It is no length of time.
    """
    try:
        return duration_ms(days_too(delay) or "")
    except ValueError as wrong:
        raise ConfigError(f"{option}: {delay!r} {wrong}") from None


def horizon_days_of(horizon: str) -> int:
    """Days of `--horizon`.

    Raises:
        ConfigError: It is no whole number of days, or fewer than 7.
    """
    ms = delay_ms(horizon, "--horizon")
    if ms % DAY_MS or ms < 7 * DAY_MS:
        raise ConfigError(f"--horizon: {horizon!r} must be whole days, 7d at least")
    return ms // DAY_MS


def search_budget(budget: str | None) -> Budget | None:
    """What `--budget` says.

    Raises:
        ConfigError: It is neither a number of trials nor a length of time.

    >>> search_budget("20"), search_budget("10m")
    (Budget(trials=20, seconds=None), Budget(trials=None, seconds=600.0))
    """
    if budget is None:
        return None
    if budget.isdigit() and int(budget):
        return Budget(trials=int(budget))
    try:
        return Budget(seconds=duration_ms(budget) / 1000)
    except ValueError:
        raise ConfigError(f"--budget: {budget!r} is neither a number of trials nor a time like 10m") from None
