"""A tiny network of four sites, twelve days by the hour, each unlike the others; cut so that each site is an owner of its own."""

import importlib.util
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from cellwright.panel import Feature, Panel, PanelSchema, Segment
from cellwright.params import Params, check

DAY, ROWS, SITES = 24, 12 * 24, ("north", "east", "south", "west")


def tiny_panel(seed: int = 0, *, rows: int = ROWS, cadence_s: float = 3600, sites: tuple[str, ...] = SITES) -> Panel:
    """Sites of different level and phase; `traffic` is the target, `users` a further feature; three values of "east" are missing."""
    rng = np.random.default_rng(seed)
    position = np.arange(len(sites))
    wave = np.sin(2 * np.pi * np.arange(rows)[:, None] / DAY - 0.7 * position)
    traffic = ((20 + 30 * position) * (2 + wave + rng.normal(0, 0.1, (rows, len(sites))))).clip(0).astype(np.float32)
    users = np.sqrt(traffic)
    if len(sites) > 1:
        traffic[30:33, 1] = np.nan
    schema = PanelSchema(
        dataset="tiny",
        sites=sites,
        features=(Feature(name="traffic", unit="Mbit/s", low=0), Feature(name="users", unit="1")),
        targets=("traffic",),
        cadence_s=cadence_s,
        clock="utc",
        start_ms=1_383_264_000_000,
        rows=rows,
        segments=(Segment(name="all", start=0, stop=rows),),
        grid=(2, 2) if len(sites) == 4 else None,
        licence="CC0",
        attribution="",
    )
    return Panel.from_arrays(schema, {"traffic": traffic, "users": users})


def tiny_params(**sections: object) -> Params:
    """Six hours are seen, three forecast by a GRU of eight units; sections given are laid over."""
    base: dict[str, dict[str, object]] = {
        "problem": {"history": 6, "horizon": 3},
        "split": {"train": 0.7, "validation": 0.15, "test": 0.15},
        "train": {"models": ["gru"], "settings": {"gru": {"options": {"hidden": 8}}}, "device": "cpu"},
        "federation": {"steps": 2, "batch": 16, "rounds": 3},
        "energy": {"idle_s": 0},
    }
    merged = {name: {**base.get(name, {}), **over} for name, over in sections.items()}  # type: ignore[dict-item]
    return check({"dataset": "tiny", **base, **merged}, "test")


@pytest.fixture
def make_panel() -> Callable[..., Panel]:
    return tiny_panel


@pytest.fixture
def panel() -> Panel:
    return tiny_panel()


@pytest.fixture
def make_params() -> Callable[..., Params]:
    return tiny_params


@pytest.fixture
def params() -> Params:
    return tiny_params()


@pytest.fixture(scope="session")
def owner_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One panel folder an owner, by the owner's name; do not write into them."""
    from cellwright.federation.owners import cut, groups

    panel = tiny_panel()
    return cut(panel, groups(panel.schema, "site"), tmp_path_factory.mktemp("owners"))


class SealedSum:
    """All stages of a sealed sum among owners who drop out where the test says."""

    def __init__(self, name: str, vectors: dict[str, np.ndarray], options: dict[str, object], anew: bool) -> None:
        from cellwright.federation.privacy import mechanism

        self.mechanism, self.vectors = mechanism(name, options), vectors
        self.there = set(vectors)
        self.side = self.mechanism.coordinator_side(tuple(sorted(vectors)), seed=1)
        self.anew = anew  # whether every message finds an owner that knows its state alone
        self.owners = {owner: self.mechanism.owner_side(owner, seed=1) for owner in vectors}
        self.sealed: dict[str, dict[str, bytes]] = {}
        self.change: dict[str, Callable[[dict], dict]] = {}  # by stage: what becomes of the replies on their way

    def owner(self, name: str):
        """The owner as it was after its last message."""
        if self.anew:
            state = self.owners[name].state()
            self.owners[name] = self.mechanism.owner_side(name, seed=1)
            self.owners[name].restore(state)
        return self.owners[name]

    def stage(self, stage: str, *, gone: Iterable[str] = ()) -> dict[str, dict[str, bytes]]:
        """Ask, and take the answers of those who are not gone."""
        asked = self.side.ask(stage, tuple(sorted(self.there)))
        self.there = {owner for owner in asked if owner not in set(gone)}
        replies = {}
        for name in sorted(self.there):
            replies[name] = self.owner(name).answer(stage, asked[name])
        self.side.take(stage, self.change.get(stage, dict)(replies))
        return replies

    def seal(self, *, gone: Iterable[str] = ()) -> None:
        """The owners' vectors."""
        self.there -= set(gone)
        for name in sorted(self.there):
            self.sealed[name] = self.owner(name).seal(self.vectors[name])
        self.side.collect(self.sealed, len(next(iter(self.vectors.values()))))

    def run(self, gone: dict[str, Iterable[str]] | None = None, *, until: str = "") -> np.ndarray:
        """The whole round, the sum in the grid's steps; or up to a stage, not included."""
        gone = gone or {}
        for stage in (*self.mechanism.before, "seal", *self.mechanism.after):
            if stage == until:
                return np.zeros(0)
            if stage == "seal":
                self.seal(gone=gone.get(stage, ()))
            else:
                self.stage(stage, gone=gone.get(stage, ()))
        return self.side.integers()

    def expected(self) -> np.ndarray:
        """The sum of the rounded vectors of those that sent one, worked out in the clear."""
        return sum(self.mechanism.options.grid.integers(self.vectors[name]) for name in self.sealed)


@pytest.fixture
def sealed_sum() -> Callable[..., SealedSum]:
    """`sealed_sum("ckks", owners, length)`: vectors are drawn; further options as keywords."""

    def make(name: str, owners: int, length: int = 40, *, anew: bool = False, **options: object) -> SealedSum:
        rng = np.random.default_rng(owners)
        return SealedSum(name, {f"o{i:02d}": rng.normal(0, 3, length) for i in range(owners)}, options, anew)

    return make


@pytest.fixture(scope="session")
def toy() -> ModuleType:
    """toy_nodes.py: nodes whose training is worked out by hand."""
    path = Path(__file__).with_name("toy_nodes.py")
    spec = importlib.util.spec_from_file_location("toy_nodes", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
