"""Who owns what: the sites of a data set in groups, and a panel of its own for each owner, which holds nothing of the others.

M.3387 10.4: an owner retrieves the rows that a task asks for from its own data. Rows are the same for every owner, since a data set
is cut by site: a task's spans mean the same times everywhere.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from cellwright.data import dayfiles
from cellwright.errors import FederationError, ParamsError
from cellwright.files import explained, whole_folder
from cellwright.panel import Panel, PanelSchema

FILE = "panel.arrow"  # all days in one: an owner's are small, and hundreds of owners would be tens of thousands of files

_UNFIT = re.compile(r"[^A-Za-z0-9_.-]+")
_LONGEST = 48  # characters of a name, so that a number fits behind it (management.records.Name takes 64)


def groups(schema: PanelSchema, owners: Literal["site"] | int) -> dict[str, tuple[int, ...]]:
    """Site indices of each owner, by the owner's name, in the order of the sites.

    `owners` is "site" (each site is an owner and gives it its name), or how many groups of neighbouring sites there are, of as
    equal size as can be: by position on the grid or by coordinates, else consecutive ones. Names fit files and
    `management.records.Name`.

    Raises:
        ParamsError: more groups than sites.
    """
    count = len(schema.sites)
    if owners == "site":
        return {name: (i,) for i, name in enumerate(_names(schema.sites))}
    if owners > count:
        raise ParamsError(
            f"federation.owners is {owners}, but '{schema.dataset}' has {count} sites; at most {count} can own some"
        )
    parts = _parted(np.arange(count), _positions(schema), owners)
    width = len(str(owners))
    return {f"group-{i:0{width}d}": tuple(sorted(part.tolist())) for i, part in enumerate(parts, 1)}


def cut(panel: Panel, groups: Mapping[str, Sequence[int]], folder: Path) -> dict[str, Path]:
    """A panel folder for each owner, `<folder>/<owner>`, that holds its own sites alone; each appears whole.

    An owner whose data are as they were is not written again, so that its files keep their times. Every feature, row, flag and
    segment stays; grid and adjacency, which speak of other sites, do not. An owner without a single measured value has a folder
    like all others.

    Raises:
        FederationError: an owner without sites, or with sites that the panel lacks.
        WorkspaceError: the disk is full or the folder is not writable.
    """
    columns = {f.name: (panel.values(f.name), panel.flags(f.name)) for f in panel.schema.features}
    out = {}
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for owner, sites in groups.items():
        _check_sites(panel.schema, owner, sites)
        index = np.asarray(sites, dtype=np.int64)
        own = {name: (values[:, index], flags[:, index]) for name, (values, flags) in columns.items()}
        _write(_own_schema(panel.schema, sites), own, folder / owner)
        out[owner] = folder / owner
    return out


def keep(panel: Panel, folder: Path) -> Path:
    """A party's own panel as a folder of one file; equal data are not written again. Returns the folder.

    Raises:
        WorkspaceError: the disk is full or the folder is not writable.
    """
    columns = {f.name: (panel.values(f.name), panel.flags(f.name)) for f in panel.schema.features}
    with explained(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    _write(panel.schema, columns, folder)
    return folder


def _names(sites: Sequence[str]) -> list[str]:
    """Names of owners after their sites: what does not fit a file becomes a dash, and equal ones get their number."""
    plain = [_UNFIT.sub("-", site).strip(".-_")[:_LONGEST] or "site" for site in sites]
    seen = Counter(name.lower() for name in plain)  # some file systems do not tell A from a
    names = [f"{name}-{i}" if seen[name.lower()] > 1 else name for i, name in enumerate(plain)]
    if len({name.lower() for name in names}) < len(names):  # "a-1" beside two sites called "a"
        names = [f"site-{i}" for i in range(len(names))]
    return names


def _positions(schema: PanelSchema) -> np.ndarray | None:
    """(sites, 2), None: unknown."""
    if schema.grid is not None:
        rows, columns = np.divmod(np.arange(len(schema.sites)), schema.grid[1])
        return np.stack((rows, columns), axis=1).astype(np.float64)
    return None if schema.coordinates is None else np.array(schema.coordinates, dtype=np.float64)


def _parted(index: np.ndarray, positions: np.ndarray | None, parts: int) -> list[np.ndarray]:
    """Halve the sites across their longer side until there are as many parts, each part's size in proportion."""
    if parts == 1:
        return [index]
    left = parts // 2
    if positions is not None:
        places = positions[index]
        axis = int(np.argmax(np.ptp(places, axis=0)))
        index = index[np.lexsort((places[:, 1 - axis], places[:, axis]))]
    size = round(len(index) * left / parts)
    return _parted(index[:size], positions, left) + _parted(index[size:], positions, parts - left)


def _check_sites(schema: PanelSchema, owner: str, sites: Sequence[int]) -> None:
    wrong = [i for i in sites if not 0 <= i < len(schema.sites)]
    if wrong or not sites:
        found = f"site {wrong[0]} of {len(schema.sites)}" if wrong else "no site"
        raise FederationError(f"owner '{owner}' is given {found}; each owner needs at least one site of '{schema.dataset}'")


def _own_schema(schema: PanelSchema, sites: Sequence[int]) -> PanelSchema:
    places = None if schema.coordinates is None else tuple(schema.coordinates[i] for i in sites)
    own = {"sites": tuple(schema.sites[i] for i in sites), "coordinates": places, "grid": None, "adjacency": None}
    return schema.model_copy(update=own)


def _write(schema: PanelSchema, own: dict[str, tuple[np.ndarray, np.ndarray]], folder: Path) -> None:
    """Written aside first: equal data give equal bytes, and then the old folder stays."""
    columns = {name: array for f, pair in own.items() for name, array in ((f, pair[0]), (f"{f}.flags", pair[1]))}
    common = schema.model_dump(mode="json", exclude={"rows", "segments"})
    stretches = [(s.name, s.start, s.stop) for s in schema.segments]
    with explained(folder), tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.new.") as aside:
        new = Path(aside) / FILE
        dayfiles.write_day(new, columns, common, schema.start_ms, stretches)
        if not _same(new, folder):
            with whole_folder(folder) as whole:
                new.replace(whole / FILE)


def _same(new: Path, folder: Path) -> bool:
    """Whether a folder holds this file and nothing else of a panel."""
    if [path.name for path in folder.glob("*.arrow")] != [FILE]:
        return False
    return (folder / FILE).read_bytes() == new.read_bytes()
