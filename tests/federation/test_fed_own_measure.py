"""What contribution is measured by, and what may be decided by errors without noise."""

import json
from dataclasses import replace

import pytest

from cellwright.errors import FederationError
from cellwright.federation import privacy
from cellwright.federation.aggregation import rule
from cellwright.federation.compression import codec
from cellwright.federation.coordinator import Coordinator
from cellwright.federation.quality.classification import BINS
from cellwright.federation.runtimes.local import open_channel
from cellwright.federation.steering import UNDECIDED


def coordinator(toy, nodes, task=None, mechanisms=(), **settings):
    return Coordinator(
        open_channel(nodes),
        task or toy.TASK,
        rule("fedavg"),
        toy.settings(**settings),
        mechanisms=mechanisms,
        codec=codec("none"),
        topology=toy.star(sorted(nodes)),
    )


def telling(toy, positive, negative):
    """Judges by how many events and others there are in bins of their score."""

    class Telling(toy.Puller):
        def answer(self, kind, parcel, state):
            reply = super().answer(kind, parcel, state)
            if kind != "evaluate":
                return reply
            counts = {
                name: [found.get(i, 0) for i in range(BINS)] for name, found in (("positive", positive), ("negative", negative))
            }
            return replace(reply, values={**reply.values, **{name: json.dumps(c) for name, c in counts.items()}})

    return {name: Telling(name, 1.0) for name in "ab"}


@pytest.mark.parametrize(
    ("positive", "negative", "error"),
    [({200: 3}, {10: 5}, 0.0), ({10: 3}, {200: 5}, 1.0), ({200: 1, 10: 1}, {100: 4}, 0.5), ({}, {100: 4}, None)],
)
def test_9_5_contribution_to_a_classification_is_measured_by_its_auc(toy, positive, negative, error):
    nodes = telling(toy, positive, negative)
    made = coordinator(toy, nodes, toy.TASK.model_copy(update={"kind": "classification"}), rounds=1)
    outcome = made.run(toy.initial())
    assert made.error(outcome.arrays) == pytest.approx(error)


def test_under_noise_on_the_average_errors_decide_nothing(toy):
    """The rate is so high that the error rises: without the mechanism patience ends the training, and the first model is kept."""
    noise = {"noise_multiplier": 1e-3, "epsilon": 1e9, "clip_norm": 1e6, "seeded_noise": True}
    nodes = {n: toy.Puller(n, 1.0) for n in "ab"}
    ways = {"steps": 1, "learning_rate": 2.5, "rounds": 5, "patience": 2}
    plain = coordinator(toy, nodes, **ways).run(toy.initial())
    assert (plain.status, len(plain.rounds)) == ("converged", 3)
    noisy = coordinator(toy, nodes, mechanisms=(privacy.mechanism("central_dp", noise),), lr_patience=1, **ways).run(
        toy.initial()
    )
    assert (noisy.status, len(noisy.rounds)) == ("rounds", 5)
    assert noisy.rounds[0].decision == UNDECIDED
    assert {r.learning_rate for r in noisy.rounds} == {2.5}
    last = noisy.rounds[-1].mae
    assert noisy.evaluations["a"].mae == pytest.approx(last, rel=0.5)  # of the last model, not of the best
    assert last > 2 * noisy.rounds[0].mae


def test_a_target_under_noise_on_the_average_is_refused(toy):
    nodes = {n: toy.Puller(n, 1.0) for n in "ab"}
    with pytest.raises(FederationError, match=r"target_mse is 3, but under Central differential privacy"):
        coordinator(toy, nodes, mechanisms=(privacy.mechanism("central_dp"),), target_mse=3.0)
