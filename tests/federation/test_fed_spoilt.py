"""A node that spoils a sealed sum is named and excluded, and the round is begun anew without it."""

from dataclasses import replace

import numpy as np
import pytest

from cellwright.errors import FederationError
from cellwright.federation import privacy
from cellwright.federation.aggregation import rule
from cellwright.federation.compression import codec
from cellwright.federation.coordinator import Coordinator
from cellwright.federation.privacy._contract import Participation
from cellwright.federation.privacy._envelopes import packed
from cellwright.federation.runtimes.local import open_channel

SEALED = "secure_aggregation"


def coordinator(toy, nodes, mechanisms, **settings):
    return Coordinator(
        open_channel(nodes),
        toy.TASK,
        rule("fedavg"),
        toy.settings(**{"rounds": 2} | settings),
        mechanisms=mechanisms,
        codec=codec("none"),
        topology=toy.star(sorted(nodes)),
    )


def spoiling(toy, change):
    """A node whose answers to some kinds are changed: kind -> blobs before -> blobs after."""

    class Spoiling(toy.Puller):
        def answer(self, kind, parcel, state):
            reply = super().answer(kind, parcel, state)
            return replace(reply, blobs=change[kind](dict(reply.blobs))) if kind in change else reply

    return Spoiling


def garbage(blobs):
    return {name: bytes(len(blob)) for name, blob in blobs.items()}


def envelopes(blobs):
    return {name: bytes(len(blob)) if name.startswith("to/") else blob for name, blob in blobs.items()}


def one_share(blobs):
    return blobs | {"self/a": blobs["self/b"]} if "self/a" in blobs and "self/b" in blobs else blobs


WAYS = {
    "keys of low order": (SEALED, {}, {"stage_advertise": lambda b: b | {"keys": bytes(64)}}, "of 5 owners could not go on"),
    "envelopes that do not open": (SEALED, {}, {"stage_share": envelopes}, "4 of 5 owners could not go on"),
    "another secret than promised": (SEALED, {}, {"stage_share": lambda b: b | {"commitment": bytes(32)}}, "another secret"),
    "a wrong share": (SEALED, {}, {"stage_unmask": one_share}, "gave a wrong share of the secret of 'a'"),
    "a key that is none": ("ckks", {"dealers": 5}, {"stage_deal": garbage}, "of 5 owners could not go on"),
    "a ciphertext that is none": (
        "ckks",
        {},
        {"train": lambda b: {"encrypted": packed({"00000000": b"none"})}},
        "cannot be read",
    ),
}


@pytest.mark.parametrize("way", sorted(WAYS))
def test_who_spoils_a_sealed_sum_is_excluded_and_the_round_is_begun_anew(toy, way):
    name, options, change, words = WAYS[way]
    seal = (privacy.mechanism(name, options),)
    spoiler = "0"  # the first by name, so that it is the dealer and among the helpers

    def nodes():
        return {n: toy.Puller(n, float(i), mechanisms=seal) for i, n in enumerate("abcd")}

    found = coordinator(toy, nodes() | {spoiler: spoiling(toy, change)(spoiler, 9.0, mechanisms=seal)}, seal).run(toy.initial())
    expected = coordinator(toy, nodes(), seal).run(toy.initial())
    first = {o.owner: o for o in found.rounds[0].owners}
    assert {n: o.outcome for n, o in first.items()} == {**dict.fromkeys("abcd", "counted"), spoiler: "refused"}
    assert words in first[spoiler].reason
    assert words in found.lost[spoiler]
    assert f"begun anew without {spoiler}" in found.rounds[0].events[0]
    assert [o.owner for o in found.rounds[1].owners] == list("abcd")
    for array_name, array in expected.arrays.items():
        np.testing.assert_allclose(found.arrays[array_name], array, atol=1e-5)


def test_whoever_accuses_an_honest_owner_excludes_itself_alone(toy):
    """One of five says that it cannot go on with what 'a' sent: the sum is had without the one."""
    seal = (privacy.mechanism(SEALED),)
    nodes = {n: toy.Puller(n, float(i), mechanisms=seal) for i, n in enumerate("abcd")}
    nodes["liar"] = spoiling(toy, {"stage_share": lambda _: {"accuses": b"a"}})("liar", 9.0, mechanisms=seal)
    found = coordinator(toy, nodes, seal).run(toy.initial())
    assert found.lost == {}
    assert {o.owner: o.outcome for o in found.rounds[0].owners} == {**dict.fromkeys("abcd", "counted"), "liar": "lost"}


def test_a_round_that_too_many_left_is_begun_anew_with_those_who_stay(toy):
    """Two of five fall silent when the masks are to be taken out: three are fewer than the four that were needed."""
    seal = (privacy.mechanism(SEALED),)
    nodes = {n: toy.Puller(n, float(i), mechanisms=seal) for i, n in enumerate("abcde")}
    for name in "de":
        nodes[name].failing = {"stage_unmask"}
    found = coordinator(toy, nodes, seal).run(toy.initial())
    assert "begun anew without d, e" in found.rounds[0].events[0]
    assert found.lost == {}  # they fell silent, and may do better
    assert [o.outcome for o in found.rounds[1].owners][:3] == ["counted"] * 3


def test_every_try_counts_for_the_privacy_budget(toy):
    noise = {"noise_multiplier": 2.0, "epsilon": 1e6}
    seal, counted = (privacy.mechanism(SEALED), privacy.mechanism("local_dp", noise)), privacy.mechanism("local_dp", noise)
    nodes = {n: toy.Puller(n, float(i), mechanisms=seal) for i, n in enumerate("abcd")}
    nodes["x"] = spoiling(toy, {"stage_share": envelopes})("x", 9.0, mechanisms=seal)
    found = coordinator(toy, nodes, seal).run(toy.initial())
    spent = []
    for number in (1, 1, 2):  # the first round twice
        counted.account(Participation(number, 5, 5, 2, 1, 10))
        spent.append(counted.spent.epsilon)
    assert [r.epsilon for r in found.rounds] == pytest.approx(spent[1:])


def test_tries_end_where_the_budget_does(toy):
    tight = {"noise_multiplier": 2.0, "epsilon": 1e6}
    once = privacy.mechanism("local_dp", tight)
    once.account(Participation(1, 5, 5, 2, 1, 10))
    seal = (privacy.mechanism(SEALED), privacy.mechanism("local_dp", tight | {"epsilon": once.spent.epsilon * 1.01}))
    nodes = {n: toy.Puller(n, float(i), mechanisms=seal) for i, n in enumerate("abcd")}
    nodes["x"] = spoiling(toy, {"stage_share": envelopes})("x", 9.0, mechanisms=seal)
    found = coordinator(toy, nodes, seal).run(toy.initial())
    assert found.status == "privacy_budget"
    assert len(found.rounds) == 1
    assert "begun anew" not in " ".join(found.rounds[0].events)


def test_where_all_fall_silent_the_training_ends_and_says_so(toy):
    seal = (privacy.mechanism("ckks"),)
    nodes = {n: toy.Puller(n, float(i), mechanisms=seal) for i, n in enumerate("abc")}
    for node in nodes.values():
        node.failing = {"stage_decrypt"}
    with pytest.raises(FederationError, match=r"in 3 rounds running.*no owner decrypted"):
        coordinator(toy, nodes, seal, rounds=3).run(toy.initial())
