"""The data set `city`: a generated mobile network whose truth is known.

A grid of cells with land use, weekly traffic, commuting, events, outages and dated changes. What a forecaster can learn is real:

    demand   D = (weekly profile of the cell's land use + crowds of events) · growth(x + burst)
    activity x(t) = φ·x(t-1) + commuting(x three steps ago in other cells) + innovation, correlated over the city
    traffic  T = C · u / √(1 + u²) with u = D / C: the cell saturates towards its capacity C

`x` is memory, `burst` and the innovations are what nobody can foresee; `floor.py` measures how much that is. The files:

    exact.py     randomness and arithmetic that give the same bits on every CPU
    options.py   what can be asked for
    land.py      the map: land use, levels, capacities, weekly profiles, commuting
    crowds.py    events at stadiums, outages, dated changes
    process.py   the process itself, day by day
    floor.py     its noise floor
    write.py     `generate`: one Parquet file a day and site.json
"""

from cellwright.data.city.options import Change, CityOptions
from cellwright.data.city.write import generate

__all__ = ["Change", "CityOptions", "generate"]
