"""Hourly rates of one LTE network, 2016-2019 (kirlf/lte-kpi-ts-forecasting): DT, E_RAB_SETUP_FR, E_RAB_DR, E_RRC_SETUP_FR.

A long table without a site column, in naive local time: 02:00 is missing on the last Sunday of every March, so the clock
follows Central European summer time; the hour that autumn repeats has one row, which is taken as summer time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cellwright.data.readers import long
from cellwright.data.readers._contract import Part, ReaderOptions

if TYPE_CHECKING:
    from cellwright.catalogue import Entry

title = "LTE network rates, hourly"


class Options(ReaderOptions):
    """What its one site is called."""

    site_name: str = "network"


def frames(files: Sequence[Path], entry: Entry, options: Options) -> list[Part]:
    """The table in the long form (see `_contract`)."""
    return long.frames(files, entry, long.Options(time="DT", site_name=options.site_name))
