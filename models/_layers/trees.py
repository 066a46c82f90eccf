"""Decision trees as flat tables: a forest is walked by gathers, one step a level, so that it exports and travels as tensors do.

Legend: B windows, P features, E ensembles, M trees of the largest ensemble, N nodes of all trees together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

_TABLES = ("numbers", "start", "column", "first", "roots")


class Tree(NamedTuple):
    """One fitted tree, node 0 its root; each a tensor with a row a node.

    A window goes to `left` where its feature `column` is at most `number`, else to `right`. A leaf has `left` = -1, and its
    `number` is what the tree says.
    """

    column: Tensor
    number: Tensor
    left: Tensor
    right: Tensor


class Forest(nn.Module):
    """Sums of trees: features (B, P) -> (B, E).

    `numbers` holds the threshold of each split and the value of each leaf, so that counting it counts what was fitted. The
    children of a node lie beside each other, `first` and first + 1; a leaf is its own child, and compares with a column of -∞,
    so that walking on from it stays. Every window takes `depth` steps in every tree.
    """

    numbers: Tensor  # (N,)
    start: Tensor  # (E,) what an ensemble says before its first tree
    column: Tensor  # (N,) int32
    first: Tensor  # (N,) int32
    roots: Tensor  # (E, M) int32; ensembles with fewer trees are filled up with a leaf of 0

    def __init__(self, features: int, ensembles: int, depth: int) -> None:
        super().__init__()
        self.features, self.depth = features, depth
        self.numbers = nn.Parameter(torch.zeros(1), requires_grad=False)
        self.start = nn.Parameter(torch.zeros(ensembles), requires_grad=False)
        self.register_buffer("column", torch.full((1,), features, dtype=torch.int32))
        self.register_buffer("first", torch.zeros(1, dtype=torch.int32))
        self.register_buffer("roots", torch.zeros(ensembles, 1, dtype=torch.int32))

    def forward(self, h_BP: Tensor) -> Tensor:
        padded = torch.cat((h_BP, torch.full_like(h_BP[:, :1], -torch.inf)), 1)
        at_BT = self.roots.reshape(1, -1).expand(h_BP.shape[0], -1)  # T = E · M
        for _ in range(self.depth):
            found_BT = padded.gather(1, _looked_up(self.column, at_BT))
            at_BT = _looked_up(self.first, at_BT) + (found_BT > _looked_up(self.numbers, at_BT))
        said_BEM = _looked_up(self.numbers, at_BT).view(-1, *self.roots.shape)
        return said_BEM.sum(-1) + self.start

    @torch.no_grad()
    def plant(self, ensembles: Sequence[Sequence[Tree]], start: Tensor) -> None:
        """Take the trees of each ensemble and its start (E,).

        Raises:
            ValueError: a tree is deeper than `depth`.
        """
        tables = _Tables(self.features, self.depth)
        roots = [[tables.add(tree) for tree in trees] for trees in ensembles]
        most = max(1, *map(len, roots))
        filler = tables.leaf(0.0) if any(len(r) < most for r in roots) else 0
        filled = torch.tensor([r + [filler] * (most - len(r)) for r in roots])
        planted = tables.tensors() | {"start": start, "roots": filled}
        self._resize(planted)
        for name, values in planted.items():
            getattr(self, name).copy_(values)

    def _resize(self, like: dict[str, Tensor]) -> None:
        """Empty tables of these shapes; a fitted forest has its own sizes."""
        for name, values in like.items():
            empty = torch.empty(values.shape, dtype=getattr(self, name).dtype, device=self.numbers.device)
            setattr(self, name, nn.Parameter(empty, requires_grad=False) if name in self._parameters else empty)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        self._resize({name: state_dict[prefix + name] for name in _TABLES if prefix + name in state_dict})
        super()._load_from_state_dict(state_dict, prefix, *rest)


def _looked_up(table: Tensor, at: Tensor) -> Tensor:
    """Entries of a table (N,) at positions of any shape; as one gather along one axis, which runtimes take with int32."""
    return table.index_select(0, at.flatten()).view(at.shape)


def joined(forests: Sequence[Mapping[str, Tensor]], shares: Sequence[float]) -> dict[str, Tensor]:
    """Tables of the forest that says the sum of share × what each of several says; all of one form, `depth` included.

    Raises:
        ValueError: they have not the same number of ensembles.
    """
    parts: dict[str, list[Tensor]] = {name: [] for name in _TABLES}
    offset = 0
    for forest, share in zip(forests, shares, strict=True):
        nodes = torch.arange(len(forest["first"]), dtype=forest["first"].dtype)
        if len(forest["start"]) != len(forests[0]["start"]):
            raise ValueError(
                f"expected {len(forests[0]['start'])} ensembles in every forest, found {len(forest['start'])} in one"
            )
        leaf = forest["first"] == nodes
        parts["numbers"].append(torch.where(leaf, forest["numbers"] * share, forest["numbers"]))
        parts["start"].append(forest["start"].double() * share)
        parts["column"].append(forest["column"])
        parts["first"].append(forest["first"] + offset)
        parts["roots"].append(forest["roots"] + offset)
        offset += len(nodes)
    start = torch.stack(parts.pop("start")).sum(0).to(forests[0]["start"].dtype)
    return {name: torch.cat(some, 1 if name == "roots" else 0) for name, some in parts.items()} | {"start": start}


class _Tables:
    """Nodes of many trees, one after the other."""

    def __init__(self, features: int, depth: int) -> None:
        self.features, self.depth = features, depth
        self.numbers: list[float] = []
        self.column: list[int] = []
        self.first: list[int] = []

    def leaf(self, value: float) -> int:
        """Append a leaf; returns where it lies."""
        self.numbers.append(value)
        self.column.append(self.features)
        self.first.append(len(self.first))
        return len(self.first) - 1

    def add(self, tree: Tree) -> int:
        """Append a tree, level by level; returns where its root lies."""
        column, number, left, right = (part.tolist() for part in tree)
        root = self.leaf(number[0])
        level = [(0, root)]
        for _ in range(self.depth):
            level = [
                pair
                for node, at in level
                if left[node] >= 0
                for pair in self._split(at, column[node], left[node], right[node], number)
            ]
        if any(left[node] >= 0 for node, _ in level):
            raise ValueError(f"a tree has more than {self.depth} levels, which is as many as are walked; limit its depth")
        return root

    def _split(self, at: int, column: int, left: int, right: int, number: list[float]) -> list[tuple[int, int]]:
        """Make the leaf at `at` a split; returns (node, where it lies) of its two children."""
        self.column[at] = column
        self.first[at] = self.leaf(number[left])
        return [(left, self.first[at]), (right, self.leaf(number[right]))]

    def tensors(self) -> dict[str, Tensor]:
        return {
            "numbers": torch.tensor(self.numbers),
            "column": torch.tensor(self.column, dtype=torch.int32),
            "first": torch.tensor(self.first, dtype=torch.int32),
        }
