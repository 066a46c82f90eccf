"""The catalogue: the data sets that ship, your own, and what is said of mistakes."""

from __future__ import annotations

from pathlib import Path
from textwrap import indent

import pytest

from cellwright.catalogue import Catalogue, load_catalogue
from cellwright.errors import ParamsError, UnknownName

SHIPPED = Path(__file__).parents[2] / "data" / "catalogue.yaml"

OWN = """\
my-cells:
  title: Our cells, 15 minutes
  files: exports/*.csv
  reader: long
  options: {time: timestamp, format: "%d.%m.%Y %H:%M", site: cell}
  timezone: Europe/Berlin
  cadence_s: 900
  features: {dl_mbps: {unit: Mbit/s, low: 0}, users: {unit: users, low: 0}}
  targets: [dl_mbps]
"""


def written(folder: Path, text: str) -> Catalogue:
    path = folder / "catalogue.yaml"
    path.write_text("datasets:\n" + indent(text, "  ") if text else "")
    return load_catalogue(path)


def test_what_ships():
    catalogue = load_catalogue(SHIPPED)
    assert catalogue.names == ("city", "milan-5x5", "gnb-prb", "ran-updates", "lte-kpi", "milan", "trentino")
    for name in catalogue.names:
        entry = catalogue.entry(name)
        assert entry.licence
        assert entry.attribution
        assert entry.title
        assert set(entry.targets) <= set(entry.features)


def test_plain_upstream_files_have_an_address_at_a_fixed_commit():
    entry = load_catalogue(SHIPPED).entry("milan-5x5")
    assert [s.name for s in entry.sources] == ["milan_grid_data.csv", "milan_41_45_41_45_adj_mx.csv"]
    for source in entry.sources:
        assert source.address is not None
        assert "/1c946c742de6e2cab0619faa555f3b5f32f2776b/" in source.address
    assert entry.sources[0].sha256 == "7828f031d3fbd306f4d575318b50312c91e496e09d10c0432ba0f1bcbe33d284"


def test_your_own_data_is_ten_lines(tmp_path):
    assert len(OWN.splitlines()) <= 10
    entry = written(tmp_path, OWN).entry("my-cells")
    assert entry.reader_options.site == "cell"
    assert entry.grows
    assert entry.features["dl_mbps"].unit == "Mbit/s"


def test_the_example_in_the_shipped_catalogue_works(tmp_path):
    example = "\n".join(line[4:] for line in SHIPPED.read_text().splitlines() if line.startswith("#   "))
    assert written(tmp_path, example).entry("my-cells") == written(tmp_path, OWN).entry("my-cells")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("reader: long", "readr: long", "readr: unknown key; did you mean 'reader'"),
        ("reader: long", "reader: lang", "no reader 'lang'.*Did you mean 'long'"),
        ("site: cell", "sit: cell", "sit: unknown key; did you mean 'site'"),
        ("time: timestamp", "feature: kpi", "time is missing"),
        ("unit: users", "units: users", "features.users.units: unknown key; did you mean 'unit'"),
        ("  title: Our cells, 15 minutes\n", "", "title is missing"),
        ("targets: [dl_mbps]", "targets: [dl_mbit]", "no feature 'dl_mbit'.*Did you mean 'dl_mbps'"),
        ("Europe/Berlin", "Europe/Berlon", "timezone 'Europe/Berlon' is not one"),
        ("files: exports/*.csv", "homepage: nowhere", "exactly one of sources, files or generator"),
        ("cadence_s: 900", "cadence_s: 0", "cadence_s: Input should be greater"),
        ("cadence_s: 900", "cadence_s: 900\n  snap_s: 500", "snap_s must be at most half"),
        ("users: {unit: users, low: 0}", "site: {unit: users}", "a feature cannot be called site"),
        ("my-cells:", "my-cells: 3\nother:", "my-cells: expected keys and values, found 3"),
        ("my-cells:", "my-cells: [", "cannot read"),
        ("  cadence_s: 900\n", "  cadence_s: 900\n  cadence_s: 600\n", "'cadence_s' stands there twice"),
    ],
)
def test_mistakes_are_named(tmp_path, old, new, said):
    with pytest.raises(ParamsError, match=said):
        written(tmp_path, OWN.replace(old, new))


def test_two_data_sets_of_one_name_are_refused(tmp_path):
    with pytest.raises(ParamsError, match="'my-cells' stands there twice; names must differ"):
        written(tmp_path, OWN + OWN)


def test_an_empty_or_missing_file_is_said(tmp_path):
    with pytest.raises(ParamsError, match="must hold data sets"):
        written(tmp_path, "")
    with pytest.raises(ParamsError, match="cannot read"):
        load_catalogue(tmp_path / "nothing.yaml")


def test_an_unknown_name_says_which_there_are():
    with pytest.raises(
        UnknownName, match=r"no data set 'milan-5'.*milan-5x5.*Did you mean 'milan-5x5'\?.*Describe your own"
    ) as caught:
        load_catalogue(SHIPPED).entry("milan-5")
    assert "city" in caught.value.known


def test_the_hash_follows_the_content(tmp_path):
    before = written(tmp_path, OWN).hash
    assert written(tmp_path, OWN).hash == before
    assert written(tmp_path, OWN.replace("900", "600")).hash != before
