"""Public holidays of a country or one of its regions, from the offline tables of the `holidays` library."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from cellwright.data.calendar import local_ms
from cellwright.errors import UnknownName

HOLIDAY = "holiday"  # the known feature: 1 on public holidays, local to the time zone

_DAY_MS = 86_400_000


@lru_cache(maxsize=64)
def check(code: str) -> None:
    """Whether `code` names a country (IT) or a region of one (IT-MI), as ISO 3166 and its part 2 do.

    Raises:
        UnknownName: it does not; the message lists those there are.
    """
    import holidays

    country, _, region = code.partition("-")
    try:
        holidays.country_holidays(country, subdiv=region or None)
    except NotImplementedError:
        supported = holidays.list_supported_countries(include_aliases=False)  # reads every country's table
    else:
        return
    if country not in supported:
        raise UnknownName("country with public holidays (problem.holidays)", country, supported)
    names = [f"{country}-{r}" for r in supported[country]]
    hint = f"Or write {country} alone, for the holidays of the whole country."
    raise UnknownName("region with public holidays (problem.holidays)", code, names, hint)


def marks(times_ms: np.ndarray, timezone: str, code: str) -> np.ndarray:
    """(rows,) float32: 1 where the local day of a time stamp is a public holiday.

    Raises:
        UnknownName: no such country or region.
    """
    check(code)
    days, index = np.unique(local_ms(times_ms, timezone) // _DAY_MS, return_inverse=True)
    dates = days.astype("datetime64[D]")
    years = dates.astype("datetime64[Y]").astype(int) + 1970
    free = [date.item() in _of_year(code, int(year)) for date, year in zip(dates, years, strict=True)]
    return np.array(free, dtype=np.float32)[index]


@lru_cache(maxsize=64)
def _of_year(code: str, year: int) -> frozenset[object]:
    """Dates of the holidays of a year."""
    import holidays

    country, _, region = code.partition("-")
    return frozenset(holidays.country_holidays(country, subdiv=region or None, years=year))
