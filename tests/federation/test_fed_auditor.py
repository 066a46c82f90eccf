"""The auditor, message by message: what is in order passes, and each rule refuses what breaks it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from cellwright.errors import FederationError
from cellwright.federation.audit.auditor import Auditor
from cellwright.federation.audit.log import AuditLog, records, verify_log
from cellwright.federation.audit.rules import Form, Rules
from cellwright.federation.audit.signing import Signer
from cellwright.federation.compression import codec
from cellwright.federation.contract import Arrays, Evaluation, Parcel, Update, Usage
from cellwright.federation.messages import evaluated, updated
from cellwright.params import Federation

NODES = ("a", "b", "c", "d", "e")
SIGNERS = {node: Signer.generate() for node in NODES}
KEYS = {node: signer.public for node, signer in SIGNERS.items()}
LIKE: Arrays = {"w": np.zeros((2, 3), np.float32), "b": np.zeros(3, np.float32)}
SPENT = Usage(seconds=1.0, cpu_s=0.5, energy_j=2.0, energy_source="modelled")


def delta(norm: float) -> Arrays:
    """An update of this Euclidean norm."""
    return {"w": np.full((2, 3), norm / 3, np.float32), "b": np.full(3, norm / 3, np.float32)}


def reply(node: str = "a", round_: int = 1, *, norm: float = 3.0, examples: int = 100, steps: int = 5, **usage: float) -> Parcel:
    update = Update(node, round_, {}, examples, steps, {"train_loss": 0.5}, replace(SPENT, **usage))
    return updated(update, delta(norm), {})


def signed(parcel: Parcel, node: str = "a", sequence: int = 1, request: str = "r") -> Parcel:
    return SIGNERS[node].sign(parcel, sender=node, sequence=sequence, request=request)


@pytest.fixture
def open_auditor() -> Callable[..., Auditor]:
    """One that wants no signatures, unless keys are given."""

    def made(
        keys: dict[str, str] | None = None, form: Form | None = None, log: AuditLog | None = None, **rules: object
    ) -> Auditor:
        return Auditor(Rules(**rules), keys, log, form or Form(LIKE), request="r")  # type: ignore[arg-type]

    return made


def broken(auditor: Auditor, parcel: Parcel, *, kind: str = "train", node: str = "a", round_: int = 1) -> str:
    """The rule that the message breaks; "": none."""
    verdict = auditor.check(kind, node, parcel, round_=round_)
    assert verdict.accepted == (not verdict.rule)
    assert bool(verdict.reason) == bool(verdict.rule)
    return verdict.rule


def test_a_message_in_order_is_accepted(open_auditor):
    assert broken(open_auditor(KEYS), signed(reply())) == ""
    assert broken(open_auditor(), reply()) == ""


@pytest.mark.parametrize("name", ["fp16", "int8", "topk"])
def test_a_compressed_update_is_checked_as_it_decodes(open_auditor, name):
    made = codec(name)
    auditor = open_auditor(form=Form(LIKE, made), max_norm=5)
    encoded = {norm: {f"d/{k}": v for k, v in made.encode(delta(norm)).arrays.items()} for norm in (4.0, 60.0)}
    assert broken(auditor, replace(reply(), arrays=encoded[4.0])) == ""
    assert broken(auditor, replace(reply(), arrays=encoded[60.0])) == "norm"
    assert broken(auditor, reply()) == "schema"  # not as this codec encodes


def test_forged_unsigned_and_unknown_senders_are_refused(open_auditor):
    auditor = open_auditor({node: KEYS[node] for node in "ab"})
    assert broken(auditor, reply()) == "signature"
    assert broken(auditor, SIGNERS["b"].sign(reply(), sender="a", sequence=1, request="r")) == "signature"
    assert broken(auditor, signed(reply("b"), "b")) == "signature"  # b's message as if a had sent it
    assert broken(auditor, SIGNERS["a"].sign(reply(), sender="b", sequence=1, request="r")) == "signature"
    assert broken(auditor, signed(reply("c"), "c"), node="c") == "signature"
    good = signed(reply())
    assert broken(auditor, replace(good, values={**good.values, "examples": 10_000})) == "signature"


def test_a_replay_is_refused_and_so_is_a_message_of_another_request(open_auditor):
    auditor = open_auditor(KEYS)
    first = signed(reply(), sequence=5)
    assert broken(auditor, first) == ""
    assert broken(auditor, first) == "replay"
    assert broken(auditor, signed(reply(), sequence=4)) == "replay"
    assert broken(auditor, signed(reply(), sequence=9, request="other")) == "replay"
    assert broken(auditor, signed(reply(), sequence=6)) == ""


def test_a_forged_message_does_not_use_up_the_true_ones_sequence(open_auditor):
    auditor = open_auditor(KEYS)
    forged = SIGNERS["b"].sign(reply(), sender="a", sequence=10**9, request="r")
    assert broken(auditor, forged) == "signature"
    assert broken(auditor, signed(reply(), sequence=1)) == ""


def test_an_update_of_another_round_is_stale_unless_the_rule_allows_it(open_auditor):
    assert broken(open_auditor(), reply(round_=4), round_=4) == ""
    for round_ in (3, 5):
        assert broken(open_auditor(), reply(round_=round_), round_=4) == "freshness"
    slow = open_auditor(max_staleness=2)
    assert [broken(slow, reply(round_=r), round_=4) for r in (1, 2, 3, 4, 5)] == ["freshness", "", "", "", "freshness"]


@pytest.mark.parametrize(
    "altered",
    [
        pytest.param(lambda p: replace(p, arrays={}), id="no-arrays"),
        pytest.param(lambda p: replace(p, arrays={**p.arrays, "d/more": np.zeros(1, np.float32)}), id="one-more"),
        pytest.param(lambda p: replace(p, arrays={**p.arrays, "w/w": np.zeros(1, np.float32)}), id="of-another-kind"),
        pytest.param(lambda p: replace(p, arrays={**p.arrays, "d/b": np.zeros(4, np.float32)}), id="shape"),
        pytest.param(lambda p: replace(p, arrays={**p.arrays, "d/b": np.zeros(3, np.float64)}), id="type"),
        pytest.param(lambda p: replace(p, arrays={**p.arrays, "x/c": np.zeros(3, np.int64)}), id="type-of-extra"),
        pytest.param(lambda p: replace(p, values={**p.values, "owner": "b"}), id="speaks-for-another"),
        pytest.param(lambda p: replace(p, values={k: v for k, v in p.values.items() if k != "examples"}), id="value-missing"),
        pytest.param(lambda p: replace(p, values={**p.values, "steps": "many"}), id="value-of-another-type"),
        pytest.param(lambda p: replace(p, values={**p.values, "steps": -1}), id="negative"),
        pytest.param(lambda p: replace(p, values={**p.values, "usage/energy_j": -5.0}), id="energy-negative"),
    ],
)
def test_an_update_of_another_form_is_refused(open_auditor, altered):
    assert broken(open_auditor(), altered(reply())) == "schema"


def test_a_rules_own_arrays_are_held_to_their_form(open_auditor):
    auditor = open_auditor(form=Form(LIKE, extra={"c": np.zeros(2, np.float32)}))
    good = reply()
    good = replace(good, arrays={**good.arrays, "x/c": np.ones(2, np.float32)})
    assert broken(auditor, good) == ""
    assert broken(auditor, reply()) == "schema"


def test_where_updates_are_sealed_one_in_the_clear_is_refused(open_auditor):
    auditor = open_auditor(form=Form(LIKE, sealed=True))
    sealed = replace(reply(), arrays={}, blobs={"sealed": b"\x00" * 64})
    assert broken(auditor, sealed) == ""
    assert broken(auditor, reply()) == "schema"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(open_auditor, bad):
    auditor = open_auditor()
    spoilt = reply()
    spoilt.arrays["d/w"][1, 1] = bad
    assert broken(auditor, spoilt) == "finite"
    assert broken(auditor, replace(reply(), values={**reply().values, "metric/train_loss": float(bad)})) == "finite"
    assert broken(auditor, replace(reply(), values={**reply().values, "examples": float(bad)})) == "finite"
    assert broken(auditor, replace(reply(), values={**reply().values, "examples": 10**400})) == "finite"
    assert broken(auditor, Parcel(arrays={"scale": np.array([bad], np.float32)}), kind="deploy") == "finite"


def test_large_but_finite_values_are_not_mistaken(open_auditor):
    assert broken(open_auditor(), reply(norm=3e25)) == ""


def test_the_norm_is_bounded(open_auditor):
    auditor = open_auditor(max_norm=6)
    assert broken(auditor, reply(norm=5.99)) == ""
    assert broken(auditor, reply(norm=6.01)) == "norm"


def test_an_update_far_larger_than_the_others_of_its_round_is_refused(open_auditor):
    auditor = open_auditor(norm_ratio=4)
    parcels = {node: reply(node, norm=norm) for node, norm in zip(NODES, (50, 1, 2, 3, 8.1), strict=True)}
    verdicts = auditor.check_round("train", parcels, round_=1)  # the median of 1, 2, 3, 8.1, 50 is 3
    assert [node for node, verdict in verdicts.items() if not verdict.accepted] == ["a"]
    assert verdicts["a"].rule == "norm"
    assert "16.7 times the median" in verdicts["a"].reason


def test_message_by_message_the_median_is_that_of_what_was_accepted(open_auditor):
    auditor = open_auditor(norm_ratio=4)
    for node in "bcd":
        assert broken(auditor, reply(node, norm=2), node=node) == ""
    assert broken(auditor, reply("a", norm=9)) == "norm"
    assert broken(auditor, reply("a", 2, norm=9), round_=2) == "norm"  # the last round's still count
    assert broken(auditor, reply("a", 4, norm=9), round_=4) == ""  # those of long ago do not


def test_too_few_updates_have_no_median(open_auditor):
    auditor = open_auditor(norm_ratio=4, least_norms=3)
    assert all(
        v.accepted for v in auditor.check_round("train", {"a": reply(norm=100), "b": reply("b", norm=1)}, round_=1).values()
    )


def test_steps_bytes_and_energy_have_budgets(open_auditor):
    assert broken(open_auditor(max_steps=4), reply(steps=5)) == "budget"
    thrifty = open_auditor(budget_j=4.5)
    assert [broken(thrifty, reply(round_=r), round_=r) for r in (1, 2, 3)] == ["", "", "budget"]  # 2 J each
    assert broken(thrifty, reply("b"), node="b", round_=1) == ""  # each node has its own
    small = open_auditor(budget_bytes=80)
    assert [broken(small, reply(round_=r), round_=r) for r in (1, 2, 3)] == ["", "", "budget"]  # 9 values of 4 bytes each


def test_a_message_too_large_is_refused_before_it_is_read(open_auditor):
    assert broken(open_auditor(max_bytes=35), reply()) == "size"
    assert broken(open_auditor(max_bytes=36), reply()) == ""
    assert broken(open_auditor(), Parcel(values={"text": "x" * (2**20 + 1)}), kind="metadata") == "size"


def test_an_owner_cannot_suddenly_hold_far_more_windows(open_auditor):
    auditor = open_auditor(examples_change=0.5)
    assert broken(auditor, Parcel(values={"owner": "a", "examples": 100}), kind="deploy") == ""
    assert [broken(auditor, reply(examples=n)) for n in (100, 150, 151, 67, 66)] == ["", "", "examples", "", "examples"]
    auditor.deployed("a", 1000)  # its data have grown, and it said so
    assert broken(auditor, reply(examples=1000)) == ""


def test_an_evaluation_is_held_to_its_own_form(open_auditor):
    auditor, good = open_auditor(), evaluated(Evaluation("a", "validation", 10, 5.0, 3.0, 1.0), SPENT, 1)
    assert broken(auditor, good, kind="evaluate") == ""
    for altered in (
        replace(good, values={**good.values, "owner": "b"}),
        replace(good, values={**good.values, "squared": -1.0}),
        replace(good, values={**good.values, "count": -10}),
        replace(good, values={k: v for k, v in good.values.items() if k != "loss"}),
        replace(good, arrays={"raw": np.zeros(3, np.float32)}),
    ):
        assert broken(auditor, altered, kind="evaluate") == "schema"


def test_a_judgement_of_an_earlier_round_or_of_none_is_refused(open_auditor):
    told = Evaluation("a", "validation", 10, 5.0, 3.0, 1.0)
    strict, patient = open_auditor(), open_auditor(max_staleness=2)
    found = {
        round_: broken(strict, evaluated(told, SPENT, round_), kind="evaluate", round_=5) for round_ in (4, 5, 6, None, True)
    }
    assert found == {4: "freshness", 5: "", 6: "freshness", None: "freshness", True: "freshness"}
    assert [broken(patient, evaluated(told, SPENT, n), kind="evaluate", round_=5) for n in (2, 3, 5)] == ["freshness", "", ""]


def test_reliability_ages_by_hand(open_auditor):
    auditor = open_auditor(half_life=1.0)
    assert auditor.reliability("a") == 1.0
    auditor.late("a")  # one credit, aged to 1/2, and one late: (1/2) / (3/2)
    assert auditor.reliability("a") == pytest.approx(1 / 3)
    assert not auditor.reliable("a")
    broken(auditor, reply())  # (1/4 + 1) / (3/4 + 1)
    assert auditor.reliability("a") == pytest.approx(5 / 7)
    auditor.lost("a")
    broken(auditor, reply(round_=99))
    assert auditor.reliability("a") == pytest.approx((5 / 4) / 4 / ((7 / 4 / 2 + 1) / 2 + 1))
    assert auditor.reliable("b")


def test_a_node_that_behaves_again_becomes_reliable_again(open_auditor):
    auditor = open_auditor(half_life=5)
    for _ in range(20):
        auditor.lost("a")
    assert auditor.reliability("a") < 0.1
    for _ in range(20):
        broken(auditor, reply())
    assert auditor.reliability("a") > 0.9


def test_state_goes_through_a_checkpoint(open_auditor, tmp_path):
    log = AuditLog.open(tmp_path / "audit.jsonl")
    auditor = open_auditor(KEYS, budget_j=5, log=log)
    for i, node in enumerate("abc"):
        broken(auditor, signed(reply(node), node, sequence=3 + i), node=node)
    auditor.late("d")
    state = auditor.state()
    again = open_auditor(KEYS, budget_j=5, log=log)
    again.restore(state)
    assert again.state() == state
    assert [again.reliability(n) for n in NODES] == [auditor.reliability(n) for n in NODES]
    assert broken(again, signed(reply(), sequence=3)) == "replay"
    assert broken(again, signed(reply(round_=2), sequence=4), round_=2) == ""
    assert broken(again, signed(reply(round_=3), sequence=5), round_=3) == "budget"
    assert broken(again, signed(reply("b", 3, norm=31), "b", sequence=9), node="b", round_=3) == ""
    again.close()
    assert any("resumed from a checkpoint after round 1" in row["reason"] for row in records(log.path))
    with pytest.raises(FederationError, match="no state of an auditor"):
        again.restore(b'{"round": 1, "nodes": {"a": {"secret": 1}}}')


def test_every_message_is_logged_and_each_round_is_signed(open_auditor, tmp_path):
    coordinator = Signer.generate()
    log = AuditLog.open(tmp_path / "audit.jsonl", coordinator)
    auditor = open_auditor(KEYS, log=log)
    auditor.sent("train", "a", Parcel(values={"round": 1}), round_=1)
    good = signed(reply())
    broken(auditor, good)
    broken(auditor, good)
    auditor.late("b", reason="600 s over")
    broken(auditor, signed(reply(round_=2), sequence=2), round_=2)
    assert verify_log(log.path, coordinator.public).signed == 4  # the second round is not over
    auditor.close()
    assert verify_log(log.path, coordinator.public).signed == 5
    rows = list(records(log.path))
    assert [(r["kind"], r["node"], r["round"], r["verdict"], r["rule"]) for r in rows] == [
        ("train", "a", 1, "sent", ""),
        ("train", "a", 1, "accepted", ""),
        ("train", "a", 1, "refused", "replay"),
        ("train", "b", 1, "late", ""),
        ("train", "a", 2, "accepted", ""),
    ]
    assert rows[1]["digest"] == good.digest().hex()


def test_the_rules_follow_from_the_parameters():
    params = Federation(steps=7, budget_j=50, rounds=9)
    assert Rules.of(params, "synchronous") == Rules(max_steps=7, budget_j=50, max_staleness=0)
    assert Rules.of(params, "asynchronous").max_staleness == 9
