"""What the parts of a federation took: added up by part, over processes, and without what lies within another part."""

import time

import pytest

from cellwright.errors import FederationError
from cellwright.federation.contract import Parcel, Reply
from cellwright.federation.costs import Costs, Spent
from cellwright.federation.messages import told_usage


def a_reply(up=7, down=3):
    return Reply("a", Parcel(), None, down, up, 0.5)


def test_messages_count_in_their_part():
    costs = Costs()
    with costs.messages("deployment") as ledger:
        ledger.carried([a_reply(), a_reply(up=1)])
        usage = {"usage/seconds": 1.0, "usage/cpu_s": 0.5, "usage/energy_j": 2.0, "usage/energy_source": "measured"}
        ledger.told({"a": Parcel(values=usage)})
    spent = costs.spent["deployment"]
    assert (spent.up_bytes, spent.down_bytes) == (8, 6)
    assert (spent.owners_cpu_s, spent.owners_energy_j, spent.owners_energy_source) == (0.5, 2.0, "measured")
    assert costs.spent["training"] == Spent()


def test_a_part_within_another_is_taken_out_of_it():
    costs = Costs()
    with costs.during("training"), costs.during("deployment"):
        time.sleep(0.02)
    assert costs.spent["deployment"].wall_s >= 0.02
    assert costs.spent["training"].wall_s < costs.spent["deployment"].wall_s


def test_the_auditor_and_the_owners_are_taken_out_of_the_coordinator():
    spent = Spent(cpu_s=10.0, auditor_cpu_s=1.0, owners_cpu_s=6.0)
    assert spent.coordinator_cpu_s(shared=True) == 3.0
    assert spent.coordinator_cpu_s(shared=False) == 9.0
    assert Spent(cpu_s=1.0, owners_cpu_s=6.0).coordinator_cpu_s(shared=True) == 0.0


def test_a_training_that_is_resumed_goes_on_counting(tmp_path):
    first = Costs.of(tmp_path / "costs.json", resumed=False)
    with first.messages("training") as ledger:
        ledger.carried([a_reply()])
    first.keep()
    second = Costs.of(tmp_path / "costs.json", resumed=True)
    with second.messages("training") as ledger:
        ledger.carried([a_reply()])
    assert second.spent["training"].up_bytes == 14
    assert Costs.of(tmp_path / "costs.json", resumed=False).spent["training"].up_bytes == 0


def test_a_damaged_file_is_told_of(tmp_path):
    (tmp_path / "costs.json").write_text('{"training": {"joules": 1}}')
    with pytest.raises(FederationError, match=r"costs\.json is damaged.*remove it"):
        Costs.of(tmp_path / "costs.json", resumed=True)


@pytest.mark.parametrize("values", [{}, {"usage/seconds": "soon", "usage/cpu_s": 1.0}, {"usage/seconds": 1.0}])
def test_what_an_answer_does_not_say_is_not_counted(values):
    assert told_usage(Parcel(values=values)) is None
