"""STGCN: the graph it is run on, and its convolutions, on inputs whose answer is known."""

from __future__ import annotations

import pytest
import torch

from models import stgcn
from models._contract import Batch
from models._layers.graph import Correlation, chebyshev, grid_adjacency, nearest, weighted

ROOT_HALF = 0.5**0.5


def test_neighbours_on_a_grid_are_weighted_by_their_distance():
    expected = [  # 0 1 2 / 3 4 5
        [0, 1, 0, 1, ROOT_HALF, 0],
        [1, 0, 1, ROOT_HALF, 1, ROOT_HALF],
        [0, 1, 0, 0, ROOT_HALF, 1],
        [1, ROOT_HALF, 0, 0, 1, 0],
        [ROOT_HALF, 1, ROOT_HALF, 1, 0, 1],
        [0, ROOT_HALF, 1, 0, 1, 0],
    ]
    torch.testing.assert_close(grid_adjacency(2, 3), torch.tensor(expected))


def test_chebyshev_polynomials_of_two_joined_nodes():
    """The scaled Laplacian is [[0, -1], [-1, 0]], whose square is 1: T_2 = 2 · 1 - 1 = 1, and T_3 = T_1."""
    adjacency = torch.tensor([[0.0, 3.0], [3.0, 0.0]])
    swap, one = torch.tensor([[0.0, -1.0], [-1.0, 0.0]]), torch.eye(2)
    torch.testing.assert_close(chebyshev(adjacency, 4), torch.stack((one, swap, one, swap)))
    torch.testing.assert_close(chebyshev(adjacency, 1), one[None])
    assert chebyshev(torch.zeros(2, 2), 2)[1].tolist() == [[0, 0], [0, 0]]  # a node without edges hears nothing


def test_sites_that_move_together_are_joined():
    """Two pairs, each of which moves together; levels and a common daily wave say nothing."""
    rng = torch.Generator().manual_seed(0)
    moves = torch.randn(200, 6, 2, 1, generator=rng).repeat_interleave(2, 2)
    level = torch.randn(200, 1, 1, 1, generator=rng) * 5
    x = moves + 0.1 * torch.randn(200, 6, 4, 1, generator=rng) + level
    correlation = Correlation(4)
    for part in x.split(50):
        correlation.add(part)
    matrix = correlation.matrix()
    assert matrix.diagonal().tolist() == pytest.approx([1.0] * 4)
    assert matrix[0, 1] > 0.9
    assert abs(matrix[0, 2]) < 0.2
    joined = nearest(matrix, 1) > 0
    assert joined.tolist() == [[False, True, False, False], [True, False, False, False],
                               [False, False, False, True], [False, False, True, False]]  # fmt: skip


def test_a_site_that_never_moves_correlates_with_none():
    correlation = Correlation(2)
    correlation.add(torch.tensor([[[[1.0], [0.0]], [[2.0], [0.0]]]]))
    assert correlation.matrix().tolist() == [[1.0, 0.0], [0.0, 0.0]]


def all_sites(problem, nodes, **given):
    return problem(inputs="all", nodes=nodes, outputs=nodes, **given)


def test_hops_of_the_graph_convolution_end_at_its_order(problem):
    """A line of five sites: with order 2 and one block a change at one end is seen by its neighbour alone."""
    options = stgcn.Options(order=2, blocks=1, dropout=0.0)
    network = stgcn.Network(all_sites(problem, 5, grid=(1, 5)), options).eval()
    network.blocks.core.layers[0].norm = torch.nn.Identity()  # it alone sees all sites
    x, known = torch.randn(1, 6, 5, 1), torch.zeros(1, 9, 0)
    changed = x.clone()
    changed[:, :, 0] += 1.0
    moved = (network(changed, known) - network(x, known)).abs().amax((0, 1, 3, 4)) > 1e-7
    assert moved.tolist() == [True, True, False, False, False]


def test_graph_convolution_equals_its_sum_over_hops():
    torch.manual_seed(0)
    conv, h, hops = stgcn.GraphConv(3, 3), torch.randn(2, 4, 5, 3), torch.randn(2, 5, 5)
    seen = [h, *(torch.einsum("mn,btnc->btmc", p, h) for p in hops)]
    by_hand = torch.relu(sum(s @ w.T for s, w in zip(seen, conv.map.weight.split(3, 1), strict=True)) + conv.map.bias + h)
    torch.testing.assert_close(conv(h, hops), by_hand)


def test_time_convolution_sees_the_past_and_is_gated():
    torch.manual_seed(0)
    conv, h = stgcn.TimeConv(1, 2, 3), torch.randn(1, 6, 1, 1)
    changed = h.clone()
    changed[:, 3] += 1.0
    moved = (conv(changed) - conv(h)).abs().amax((0, 2, 3)) > 1e-7
    assert moved.tolist() == [False, False, False, True, True, True]
    with torch.no_grad():
        conv.map.bias[2:] = -100.0  # the gate is shut
    assert conv(h).abs().max() < 1e-20


def test_where_there_is_a_grid_it_is_the_graph_unless_correlation_is_asked_for(problem):
    batch = Batch(torch.randn(50, 6, 4, 1), torch.zeros(50, 9, 0), torch.zeros(50, 3, 4, 1), torch.ones(50, 3, 4, 1))
    forms = {}
    for name in ("auto", "grid", "correlation"):
        network = stgcn.Network(all_sites(problem, 4, grid=(2, 2)), stgcn.Options(adjacency=name))
        network.prepare([batch])
        forms[name] = network.blocks.core.polynomials
    torch.testing.assert_close(forms["auto"], chebyshev(grid_adjacency(2, 2), 3)[1:])
    torch.testing.assert_close(forms["grid"], forms["auto"])
    assert not torch.allclose(forms["correlation"], forms["auto"])
    for name, said in (("grid", "these sites lie on no grid"), ("data", "the data set knows no edges")):
        with pytest.raises(ValueError, match=said):
            stgcn.Network(all_sites(problem, 4), stgcn.Options(adjacency=name))


def test_edges_of_the_data_set_are_taken_both_ways(problem):
    edges = ((0, 1, 0.5), (1, 0, 0.75), (1, 2, 1.0))
    expected = torch.tensor([[0, 0.75, 0], [0.75, 0, 1.0], [0, 1.0, 0]])
    torch.testing.assert_close(weighted(edges, 3), expected)
    for options in (stgcn.Options(), stgcn.Options(adjacency="data")):
        network = stgcn.Network(all_sites(problem, 3, edges=edges), options)
        network.prepare([])
        torch.testing.assert_close(network.blocks.core.polynomials, chebyshev(expected, 3)[1:])


def test_what_correlation_found_is_saved_with_the_weights(problem):
    batch = Batch(torch.randn(50, 6, 4, 1), torch.zeros(50, 9, 0), torch.zeros(50, 3, 4, 1), torch.ones(50, 3, 4, 1))
    network, fresh = (stgcn.Network(all_sites(problem, 4), stgcn.Options()) for _ in range(2))
    network.prepare([batch])
    assert not fresh.blocks.core.polynomials.any()
    fresh.load_state_dict(network.state_dict())
    torch.testing.assert_close(fresh.blocks.core.polynomials, network.blocks.core.polynomials)


def test_runs_on_a_whole_city(problem):
    network = stgcn.Network(all_sites(problem, 400, grid=(20, 20)), stgcn.Options()).eval()
    assert network(torch.randn(2, 6, 400, 1), torch.zeros(2, 9, 0)).shape == (2, 3, 400, 1, 1)
