"""STTRE's relative embeddings, masks and variables, on small inputs whose answer is known."""

from __future__ import annotations

import pytest
import torch

from models import sttre


def test_skew_puts_each_distance_on_its_diagonal():
    """Column c of a query's row belongs to the key c places before it, and goes round at the beginning."""
    scores = torch.tensor([[0.0, 1, 2], [10, 11, 12], [20, 21, 22]])
    expected = [[0.0, 2, 1], [11, 10, 12], [22, 21, 20]]  # row q, key k: scores[q, (q - k) mod 3]
    assert sttre.skew(scores).tolist() == expected


@pytest.mark.parametrize("length", [1, 2, 7])
def test_attention_adds_the_relative_term_before_the_softmax(length):
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, length, 4).unbind(0)
    embedding = torch.randn(length, 4)
    hidden = torch.ones(length, length, dtype=torch.bool).triu(1)
    expected = torch.zeros(2, length, 4)
    for b in range(2):
        for query in range(length):
            keys = range(query + 1)
            scores = torch.stack([(q[b, query] @ k[b, key] + q[b, query] @ embedding[query - key]) / 2 for key in keys])
            expected[b, query] = scores.softmax(0) @ v[b, : query + 1]
    torch.testing.assert_close(sttre.attention(q, k, v, embedding, hidden), expected)


def test_temporal_encoder_sees_its_own_variable_in_the_past(problem):
    """A changed value reaches its own variable from that step on, in the temporal encoder; its own step, in the spatial one."""
    torch.manual_seed(0)
    core = sttre.Core(4, 3, sttre.Options()).eval()
    h = torch.randn(1, 4, 3)
    changed = h.clone()
    changed[0, 2, 1] += 1.0
    moved = (core.sequence({"h": changed}) - core.sequence({"h": h})).abs()[0] > 1e-7
    temporal, spatial, joint = moved.split(3, 1)
    assert temporal.nonzero().tolist() == [[2, 1], [3, 1]]
    assert spatial.nonzero().tolist() == [[2, 0], [2, 1], [2, 2]]
    assert joint.nonzero().tolist() == [[2, 0], [2, 1], [2, 2], [3, 0], [3, 1], [3, 2]]


def test_rings_by_distance_from_the_centre():
    assert sttre.rings(1).tolist() == [[1.0]]
    assert sttre.rings(5).sum(1).tolist() == [1.0, 8.0, 16.0]
    assert sttre.rings(11).sum(1).tolist() == [1.0, 8.0, 16.0, 24.0, 32.0, 40.0]
    assert sttre.rings(3).sum(0).tolist() == [1.0] * 9


def test_the_mean_of_a_ring_leaves_out_what_lies_over_the_edge(problem):
    seen = problem(inputs="patch", nodes=9, features=("traffic", "valid"), grid=(3, 3), history=1)
    x = torch.zeros(1, 1, 9, 2)
    x[0, 0, 4] = torch.tensor([7.0, 1.0])
    x[0, 0, 5] = torch.tensor([2.0, 1.0])
    x[0, 0, 8] = torch.tensor([4.0, 1.0])  # the other six lie outside
    variables = sttre.Variables(seen, "rings")
    assert variables.count == 2
    assert variables(x, torch.zeros(1, 4, 0)).tolist() == [[[7.0, 3.0]]]


@pytest.mark.parametrize(("nodes", "how", "count"), [(9, "auto", 9), (25, "auto", 3), (121, "auto", 6), (25, "sites", 25)])
def test_variables_of_a_patch(problem, nodes, how, count):
    side = round(nodes**0.5)
    seen = problem(inputs="patch", nodes=nodes, features=("traffic", "valid"), grid=(side, side))
    assert sttre.Variables(seen, how).count == count


def test_more_tokens_than_memory_holds_are_refused(problem):
    """A day of 11 × 11 patches: 144 steps × 6 rings."""
    day = problem(inputs="patch", nodes=121, features=("traffic", "valid"), grid=(11, 11), history=144)
    with pytest.raises(ValueError, match=r"each of 864 tokens \(144 steps × 6 variables\).*at most 600.*shorten problem.history"):
        sttre.Network(day, sttre.Options())
    assert sttre.Network(day, sttre.Options(max_tokens=864)).blocks.core.variables == 6


def test_each_group_has_its_own_weights_and_the_joint_heads_share_theirs():
    core = sttre.Core(4, 3, sttre.Options(width=8, heads=2))
    assert core.temporal.layers[0].attend.maps.shape == (3, 8, 24)
    assert core.temporal.layers[0].attend.relative.shape == (3, 1, 4, 8)
    assert core.spatial.layers[0].attend.maps.shape == (4, 8, 24)
    assert core.spatial.layers[0].attend.relative.shape == (4, 1, 3, 8)
    assert core.joint.layers[0].attend.maps.weight.shape == (12, 4)
    assert core.joint.layers[0].attend.relative.shape == (12, 4)


def test_every_layer_reads_the_one_before():
    torch.manual_seed(0)
    core = sttre.Core(4, 3, sttre.Options(layers=2)).eval()
    h = torch.randn(2, 4, 3)
    before = core.sequence({"h": h})
    with torch.no_grad():
        core.joint.layers[0].out.weight.add_(0.5)
    assert not torch.equal(core.sequence({"h": h}), before)


def test_heads_divide_the_width():
    with pytest.raises(ValueError, match="width must be a multiple of heads: 18 is none of 4"):
        sttre.Options(width=18)
