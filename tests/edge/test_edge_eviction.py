"""What goes first where the disk is too small, what is popular, and reports that wait."""

import shutil
from collections import namedtuple

import pytest
from edge_cloud import edge_of, publish, served, until

from cellwright.edge import library
from cellwright.edge.eviction import FAMILY, victims
from cellwright.edge.eviction._contract import Candidate
from cellwright.edge.outbox import Outbox, Report
from cellwright.edge.uses import Key, Uses
from cellwright.errors import UnknownName
from cellwright.families import member, members

SMALL, LARGE, RARE = (
    Candidate(Key("t", "small", "1.0.0"), 100, 2.0),
    Candidate(Key("t", "large", "1.0.0"), 1000, 3.0),
    Candidate(Key("t", "rare", "1.0.0"), 400, 1.0),
)


def gone(policy, needed, *candidates):
    found = victims(policy, candidates or (SMALL, LARGE, RARE), needed)
    return found and [c.key.model for c in found]


def test_each_policy_has_an_order_of_its_own():
    assert gone("popularity", 450) == ["rare", "small"]
    assert gone("size", 450) == ["large"]
    assert gone("density", 450) == ["rare", "large"]  # 2.5, 3 and 20 requests a kB
    assert gone("popularity", 1501) is None
    assert gone("popularity", 1500) == ["rare", "small", "large"]


@pytest.mark.parametrize("policy", members(FAMILY))
def test_a_lower_priority_goes_first_whatever_the_policy(policy):
    favoured = [Candidate(c.key, c.bytes, c.popularity, priority=1) for c in (SMALL, LARGE, RARE)]
    humble = Candidate(Key("t", "humble", "1.0.0"), 10, 1e9)
    assert gone(policy, 5, *favoured, humble) == ["humble"]
    assert member(FAMILY, policy, what="policy").title


def test_an_unknown_policy_says_which_there_are():
    with pytest.raises(UnknownName, match="density, popularity, size"):
        victims("lru", (SMALL,), 1)


def test_old_requests_count_less():
    now = [0.0]
    uses = Uses(half_life_s=10, clock=lambda: now[0])
    key = Key("t", "m", "1.0.0")
    assert uses.idle_s(key) == float("inf")
    uses.count(key, 8)
    now[0] = 20.0
    assert uses.popularity(key) == 2.0
    uses.count(key)
    assert uses.popularity(key) == 3.0
    assert uses.take_counts() == {key: 9}
    assert uses.take_counts() == {}
    with uses.running(key):
        now[0] = 50.0
        assert uses.idle_s(key) == 0
    assert uses.idle_s(key) == 0
    now[0] = 53.0
    assert uses.idle_s(key) == 3.0


def test_a_full_disk_loses_nothing_and_is_said(operator_cloud, monkeypatch):
    first = publish(operator_cloud, "guide")
    usage = namedtuple("usage", "total used free")
    with edge_of(operator_cloud) as edge:
        until(lambda: served(edge, "guide"))
        monkeypatch.setattr(library.shutil, "disk_usage", lambda _: usage(10**9, 10**9, 0))
        second = publish(operator_cloud, "guide", "2.0.0")
        until(lambda: edge.http.get("/readyz").json()["problems"] == ["disk full: 1 versions are not held"])
        assert served(edge, "guide") == ("1.0.0", first)
        monkeypatch.undo()
        until(lambda: served(edge, "guide") == ("2.0.0", second))
        until(lambda: edge.http.get("/readyz").json()["problems"] == [])
    assert shutil.disk_usage(operator_cloud.tmp).free > 0


def test_reports_wait_in_order_and_the_oldest_go_when_there_are_too_many(tmp_path):
    outbox = Outbox(tmp_path / "outbox.db", most_rows=3)
    assert outbox.put([Report("fetch", name, name) for name in "abc"]) == 3
    assert [r.document for r in Outbox(tmp_path / "outbox.db").oldest("fetch", 2)] == ["a", "b"]
    batch = outbox.oldest("fetch", 3)
    assert outbox.put([Report("fetch", "c", "changed meanwhile")]) == 0
    outbox.sent(batch)
    assert [r.document for r in outbox.oldest("fetch", 3)] == ["changed meanwhile"]
    outbox.put([Report("qos", str(i), str(i)) for i in range(10)])
    assert [r.document for r in outbox.oldest("qos", 10)] == ["7", "8", "9"]
    assert len(outbox) == 3
