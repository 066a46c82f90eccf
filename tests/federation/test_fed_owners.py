"""Who owns what: groups of sites, and a panel of its own for each owner."""

import re

import numpy as np
import pytest

from cellwright.errors import FederationError, ParamsError
from cellwright.federation.owners import cut, groups
from cellwright.panel import Panel, Segment

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def schema_of(panel, sites, **changes):
    return panel.schema.model_copy(update={"sites": tuple(sites), "grid": None, "coordinates": None, **changes})


def test_each_site_is_an_owner_of_its_name(panel):
    assert groups(panel.schema, "site") == {"north": (0,), "east": (1,), "south": (2,), "west": (3,)}


def test_names_of_owners_fit_files_and_are_each_once(panel):
    sites = ("cell 1/a", "cell 1:a", "../..", "Ä", "x" * 200, "ab", "AB", "ok-1")
    names = list(groups(schema_of(panel, sites), "site"))
    assert len({name.lower() for name in names}) == len(sites)
    assert all(NAME.fullmatch(name) for name in names)
    assert names[-1] == "ok-1"


def test_groups_are_squares_of_a_grid(panel):
    schema = schema_of(panel, map(str, range(16)), grid=(4, 4))
    assert groups(schema, 4) == {
        "group-1": (0, 1, 4, 5),
        "group-2": (2, 3, 6, 7),
        "group-3": (8, 9, 12, 13),
        "group-4": (10, 11, 14, 15),
    }


def test_groups_follow_coordinates_else_the_order_of_the_sites(panel):
    far = ((0.0, 0.0), (9.0, 0.0), (1.0, 0.0), (8.0, 0.0), (0.5, 0.1))
    assert groups(schema_of(panel, "abcde", coordinates=far), 2) == {"group-1": (0, 4), "group-2": (1, 2, 3)}
    assert groups(schema_of(panel, "abcde"), 2) == {"group-1": (0, 1), "group-2": (2, 3, 4)}


@pytest.mark.parametrize("sites", [7, 25, 100])
def test_every_site_is_in_one_group_of_nearly_equal_size(panel, sites):
    for owners in range(1, min(sites, 13)):
        parts = groups(schema_of(panel, map(str, range(sites))), owners)
        assert sorted(i for part in parts.values() for i in part) == list(range(sites))
        sizes = [len(part) for part in parts.values()]
        assert len(sizes) == owners
        assert max(sizes) - min(sizes) <= 1 + sites // (2 * owners)


def test_more_groups_than_sites_cannot_be_meant(panel):
    with pytest.raises(ParamsError, match="owners is 5, but 'tiny' has 4 sites"):
        groups(panel.schema, 5)


def test_an_owner_holds_its_own_sites_alone(panel, tmp_path):
    neighbours = {
        "adjacency": ((0, 1, 1.0),),
        "segments": (Segment(name="a", start=0, stop=100), Segment(name="b", start=130, stop=288)),
    }
    whole = Panel.from_arrays(
        panel.schema.model_copy(update=neighbours),
        {f.name: panel.values(f.name) for f in panel.schema.features},
        {f.name: panel.flags(f.name) for f in panel.schema.features},
    )
    folders = cut(whole, {"two": (1, 3), "one": (0,)}, tmp_path)
    own = Panel.open(folders["two"])
    assert folders["two"] == tmp_path / "two"
    assert own.schema.sites == ("east", "west")
    assert (own.schema.grid, own.schema.adjacency) == (None, None)
    assert own.schema.segments == whole.schema.segments
    assert own.schema.rows == whole.schema.rows
    for feature in ("traffic", "users"):
        np.testing.assert_array_equal(own.values(feature), whole.values(feature)[:, [1, 3]])
        np.testing.assert_array_equal(own.flags(feature), whole.flags(feature)[:, [1, 3]])


def test_unchanged_owners_are_not_written_again_and_changed_ones_are(panel, make_panel, tmp_path):
    parts = groups(panel.schema, "site")
    before = {owner: path.stat().st_ino for owner, path in cut(panel, parts, tmp_path).items()}
    assert {owner: path.stat().st_ino for owner, path in cut(panel, parts, tmp_path).items()} == before
    values = {f.name: panel.values(f.name).copy() for f in panel.schema.features}
    values["traffic"][5, 2] += 1
    after = {o: p.stat().st_ino for o, p in cut(Panel.from_arrays(panel.schema, values), parts, tmp_path).items()}
    assert {owner for owner in parts if after[owner] != before[owner]} == {"south"}
    assert Panel.open(tmp_path / "south").values("traffic")[5, 0] == values["traffic"][5, 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(parts)


def test_an_owner_that_would_hold_nothing_is_refused(panel, tmp_path):
    with pytest.raises(FederationError, match="'nobody' is given no site"):
        cut(panel, {"nobody": ()}, tmp_path)
    with pytest.raises(FederationError, match="site 9 of 4"):
        cut(panel, {"lost": (9,)}, tmp_path)
