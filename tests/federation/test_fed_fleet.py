"""Nodes from a file or of this machine, and what is chosen where params.yaml leaves it open (M.3387 8.3, 9.2, 9.3)."""

from __future__ import annotations

import pytest

from cellwright.errors import ParamsError
from cellwright.federation.deciding import circumstances, decided
from cellwright.federation.fleet import fleet
from cellwright.workspace import Workspace

OWNERS = {"north": ("north",), "east": ("east",), "south": ("south",), "west": ("west",)}
FILE = """
nodes:
  - {name: centre, roles: [coordinator], layer: cloud, security: 3}
  - {name: north, roles: [data_owner], seconds_per_step: 0.01}
  - {name: east, roles: [data_owner], seconds_per_step: 0.01}
  - {name: south, roles: [data_owner], seconds_per_step: 0.01}
  - {name: west, roles: [data_owner], seconds_per_step: 0.2}
links:
  - {source: north, target: centre, bandwidth_bps: 1.0e6, delay_ms: 20}
"""


@pytest.fixture
def ws(tmp_path, panel) -> Workspace:
    panel.save(Workspace(tmp_path).panel("tiny"))
    (tmp_path / "nodes.yaml").write_text(FILE)
    return Workspace(tmp_path)


def test_without_a_file_each_owner_is_a_node_of_this_machine(params, tmp_path):
    found = fleet(params.federation, tmp_path, OWNERS)
    assert {n.name: n.sites for n in found.nodes if "data_owner" in n.roles} == OWNERS
    assert not found.simulated


def test_a_file_says_who_there_is_and_how_fast(make_params, ws):
    found = fleet(make_params(federation={"nodes": "nodes.yaml"}).federation, ws.root, OWNERS)
    assert found.speeds()["west"] == 0.2
    assert found.simulated
    assert found.links[0].delay_ms == 20


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("nodes: [{name: centre, roles: [king]}]", "roles"),
        ("nodes: [{name: centre, roles: [coordinator]}]", "no node for the owner 'north'"),
        (FILE + "  - {source: north, target: moon}\n", "'moon'"),
        (FILE.replace("name: west", "name: east"), "two nodes called 'east'"),
        ("links: []", "must hold `nodes:`"),
    ],
)
def test_a_wrong_file_is_told_where(make_params, tmp_path, content, words):
    (tmp_path / "nodes.yaml").write_text(content)
    with pytest.raises(ParamsError, match=words):
        fleet(make_params(federation={"nodes": "nodes.yaml"}).federation, tmp_path, OWNERS)


def test_levels_of_owners_that_lie_apart_are_seen(params, ws):
    known = circumstances(params, ws)
    assert known.heterogeneity > 1  # the sites' means are 40, 100, 160 and 220, their spread about 14 to 80
    assert len(known.examples) == 4


def test_rule_and_model_are_chosen_where_they_are_open(make_params, ws):
    found = decided(make_params(federation={"rule": "auto", "model": "auto"}), ws)
    assert (found.params.federation.model, found.params.federation.rule) == ("ridge", "fedgram")  # 200 rows an owner are few
    assert len(found.words) == 2
    slow = decided(make_params(federation={"rule": "auto", "nodes": "nodes.yaml"}), ws)
    assert slow.params.federation.rule == "semi_synchronous"
    assert decided(make_params(), ws).words == ()
