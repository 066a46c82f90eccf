"""What each privacy mechanism costs a round, in bytes and in time, with 50 owners and a model of 30,000 parameters.

    python benchmarks/privacy.py                       # all, and benchmarks/results/<date>-privacy.md
    python benchmarks/privacy.py --only ckks           # one mechanism; nothing is written
    python benchmarks/privacy.py --only leaks          # what gradient inversion finds of one window, with and without noise

Bytes are those of the messages as Flower carries them (`runtimes/wire.py`), but for the model that goes down, which is the same for
all; "in the clear" is the update as it is. Milliseconds are of CPU time of one thread: of all owners together, divided by their
number, and of the coordinator. Each sealed sum is measured with all owners, and with a fifth of them lost at each stage, and held
against the sum worked out in the clear, integer by integer. DP-SGD is measured against plain steps of the same network.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np

from cellwright.federation import privacy
from cellwright.federation.contract import DpSgd, Local, Parcel
from cellwright.federation.messages import stage
from cellwright.federation.privacy._contract import Mechanism, Participation
from cellwright.federation.runtimes.wire import pack, size

OWNERS, PARAMETERS, ROUNDS = 50, 30_000, 40
BATCH, EXAMPLES, STEPS = 256, 6_000, 20  # of an owner and a round, for ε and for DP-SGD
NAMES = tuple(f"owner-{i:02d}" for i in range(OWNERS))
FIFTH = NAMES[::5]
HEAD = """| mechanism | kB up an owner | kB down an owner | ms an owner | ms coordinator | |
| --- | --- | --- | --- | --- | --- |"""

LEAKS = """| network | parameters | in the clear | 0.1 | 8 |
| --- | --- | --- | --- | --- |"""
ATTACKED: dict[str, dict[str, object]] = {
    "dlinear": {},
    "patchtst": {},
    "mlp": {"hidden": 32, "depth": 1, "dropout": 0.0},
    "gru": {"hidden": 16},
    "lstm": {"hidden": 16},
}


@dataclass
class Cost:
    """Of one round, all owners together."""

    up: int = 0  # bytes
    down: int = 0
    owners_s: float = 0.0  # CPU-seconds
    coordinator_s: float = 0.0

    def row(self, name: str, note: str) -> str:
        """A line of the table."""
        each = self.up / OWNERS / 1e3, self.down / OWNERS / 1e3, 1e3 * self.owners_s / OWNERS
        return f"| {name} | {each[0]:,.1f} | {each[1]:,.1f} | {each[2]:,.2f} | {1e3 * self.coordinator_s:,.1f} | {note} |"


class Clock:
    """CPU-seconds of this process since it was last looked at."""

    def __init__(self) -> None:
        self._at = time.process_time()

    def __call__(self) -> float:
        before, self._at = self._at, time.process_time()
        return self._at - before


def vectors() -> dict[str, np.ndarray]:
    """Updates as a network of that size has them, with the number of windows as the last element."""
    rng = np.random.default_rng(0)
    return {name: np.append(rng.normal(0, 0.01, PARAMETERS) * EXAMPLES, EXAMPLES) for name in NAMES}


def in_the_clear() -> Cost:
    """The update, float32."""
    return Cost(up=OWNERS * size(pack(Parcel(arrays={"d/weight": np.zeros(PARAMETERS, np.float32)}))))


def sealed(name: str, lost_at: str) -> tuple[Cost, int]:
    """One round of a sealed sum; returns its cost and how many owners are in the sum.

    Raises:
        AssertionError: the sum is not exactly that of the vectors that came.
    """
    made, own, cost, clock = privacy.mechanism(name), vectors(), Cost(), Clock()
    side, sides = made.coordinator_side(NAMES, seed=1), {owner: made.owner_side(owner, seed=1) for owner in NAMES}
    came: dict[str, Mapping[str, bytes]] = {}
    for step in (*made.before, "update", *made.after):
        gone = set(FIFTH) if step == lost_at else set()
        clock()
        if step == "update":
            came = {owner: sides[owner].seal(own[owner]) for owner in sorted(set(sides) - gone)}
            cost.owners_s += clock()
            side.collect(came, PARAMETERS + 1)
            cost.coordinator_s += clock()
            cost.up += sum(size(pack(stage(message, 1))) for message in came.values())
        else:
            asked = side.ask(step, tuple(sorted(sides)))
            cost.coordinator_s += clock()
            replies = {owner: sides[owner].answer(step, message) for owner, message in asked.items() if owner not in gone}
            cost.owners_s += clock()
            side.take(step, replies)
            cost.coordinator_s += clock()
            cost.down += sum(size(pack(stage(message, 1))) for message in asked.values())
            cost.up += sum(size(pack(stage(message, 1))) for message in replies.values())
        sides = {owner: sides[owner] for owner in sorted(set(sides) - gone)}
    exact = sum(made.options.grid.integers(own[owner]) for owner in came)
    assert np.array_equal(side.integers(), exact), f"{name}: the sum is not exact"
    return cost, len(came)


def sums(name: str) -> Iterator[str]:
    """A sealed sum with all owners, and with a fifth of them lost at each stage."""
    made = privacy.mechanism(name)
    for lost_at in ("", *made.before, "update", *made.after):
        cost, count = sealed(name, lost_at)
        note = f"a fifth lost at {lost_at}" if lost_at else "nobody lost"
        yield cost.row(name, f"{note}: the exact sum of {count}")


def noise(name: str) -> Iterator[str]:
    """Local or central differential privacy."""
    made, rng = privacy.mechanism(name), np.random.default_rng(0)
    delta = {"weight": rng.normal(0, 0.01, PARAMETERS).astype(np.float32)}
    cost, clock = in_the_clear(), Clock()
    protected = [made.protect(delta, rng) for _ in NAMES]
    cost.owners_s = clock()
    average = {"weight": np.mean([made.bounded(one)["weight"] for one in protected], 0, dtype=np.float32)}
    made.finish(average, OWNERS, rng)
    cost.coordinator_s = clock()
    yield cost.row(name, spent(made))


def spent(made: Mechanism) -> str:
    """ε with the default options."""
    for round_ in range(1, ROUNDS + 1):
        made.account(Participation(round_, OWNERS, OWNERS, STEPS, BATCH, EXAMPLES))
    total = made.spent
    assert total is not None
    return f"ε = {total.epsilon:.2f} after {ROUNDS} rounds (δ = {total.delta:g}, {total.unit})"


def dp_sgd(name: str) -> Iterator[str]:
    """Steps of a GRU at one owner, plain and private."""
    import torch

    from cellwright.federation.dp_training import PrivateSteps
    from cellwright.training.losses import forecast_loss
    from models import gru
    from models._contract import Batch, Problem

    torch.set_num_threads(1)
    problem = Problem(72, 6, 600, "site", nodes=1, outputs=1, features=("traffic",), targets=("traffic",))
    network = gru.Network(problem, gru.Options(hidden=96))
    x, y = torch.randn(BATCH, 72, 1, 1), torch.randn(BATCH, 6, 1, 1)
    batch = Batch(x, torch.zeros(BATCH, 78, 0), y, torch.ones_like(y))
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)

    def plain() -> None:
        total, count = forecast_loss("mae", problem, network(batch.x, batch.known), batch)
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()

    local = Local(STEPS, BATCH, 1e-3, dp_sgd=DpSgd(1.0, 1.0))
    private = PrivateSteps(
        network, dict(network.named_parameters()), torch.optim.AdamW(network.parameters()), "mae", local, EXAMPLES
    )
    slow, fast = step_s(lambda: private.step(batch)), step_s(plain)
    cost = in_the_clear()
    cost.owners_s = OWNERS * STEPS * (slow - fast)
    size_ = sum(p.numel() for p in network.parameters())
    of = f"{STEPS} steps of {BATCH} windows, GRU of {size_:,} parameters: {1e3 * slow:.0f} ms a step, {1e3 * fast:.0f} ms in the clear"
    yield cost.row(name, f"{of}; {spent(privacy.mechanism(name))}")


def leaks() -> Iterator[str]:
    """Gradient inversion of an update of one step on one window: correlation of the history found with the true one."""
    import torch

    from cellwright.families import member
    from cellwright.federation.attacks.gradient_inversion import gradient_inversion, gradient_of
    from cellwright.training.losses import forecast_loss
    from models._contract import Batch, Problem

    torch.set_num_threads(1)
    problem = Problem(24, 4, 3600, "site", nodes=1, outputs=1, features=("traffic",), targets=("traffic",), season=24)
    series = np.sin(2 * np.pi * np.arange(28) / 24) + np.random.default_rng(1).normal(0, 0.3, 28)
    values = torch.tensor(series, dtype=torch.float32)
    batch = Batch(
        values[:24].reshape(1, 24, 1, 1), torch.zeros(1, 28, 0), values[24:].reshape(1, 4, 1, 1), torch.ones(1, 4, 1, 1)
    )
    for name, options in ATTACKED.items():
        torch.manual_seed(0)
        module = member("models", name, what="model")
        network = module.Network(problem, module.Options(**options)).eval()
        total, count = forecast_loss("mse", problem, network(batch.x, batch.known), batch)
        gradients = torch.autograd.grad(total / count, list(network.parameters()), allow_unused=True, materialize_grads=True)
        delta = {n: (-0.1 * g).numpy() for (n, _), g in zip(network.named_parameters(), gradients, strict=True)}
        length = float(np.sqrt(sum(np.square(a).sum() for a in delta.values())))
        found = []
        for multiplier in (0.0, 0.1, 8.0):
            noisy = delta
            if multiplier:
                made = privacy.mechanism("local_dp", {"noise_multiplier": multiplier, "clip_norm": length, "seeded_noise": True})
                noisy = made.protect(delta, np.random.default_rng(0))
            inverted = gradient_inversion(network, gradient_of(noisy, 0.1), batch.known)
            found.append(f"{inverted.correlation(batch.x.numpy()[0]):.2f} ({inverted.distance:.0e})")
        yield f"| {network.title} | {sum(p.numel() for p in network.parameters()):,} | {' | '.join(found)} |"


def step_s(step: Callable[[], object]) -> float:
    """CPU-seconds of one step, the first left out."""
    step()
    clock = Clock()
    for _ in range(3):
        step()
    return clock() / 3


def measured(name: str) -> Iterator[str]:
    """Rows of one mechanism."""
    if privacy.mechanism(name).seals:
        yield from sums(name)
    else:
        yield from dp_sgd(name) if name == "dp_sgd" else noise(name)


def page(rows: list[str], leaked: list[str], day: str) -> str:
    """The results as a page."""
    libraries = ", ".join(
        f"{name} {version(name)}" for name in ("numpy", "torch", "cryptography", "tenseal", "opacus", "dp-accounting")
    )
    return f"""# Privacy mechanisms, {day}

`python benchmarks/privacy.py` on {platform.machine()}, one thread; Python {platform.python_version()}, {libraries}.
Load average at the end {os.getloadavg()[0]:.1f}. {OWNERS} owners, {PARAMETERS:,} parameters, one round; bytes beside the model that goes
down. The sums are compared integer by integer with the sum worked out in the clear.

{HEAD}
{chr(10).join(rows)}

What gradient inversion finds of one window, from one step of gradient descent on it, in the clear and under `local_dp` by its noise
multiplier: correlation of the history found with the true one (distance of the gradients, 0 to 1).

{LEAKS}
{chr(10).join(leaked)}
"""


def main() -> None:
    """Measure, print, and write the page where all was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=(*privacy.names(), "leaks"))
    only = parser.parse_args().only
    leaked = list(leaks()) if only in (None, "leaks") else []
    if leaked:
        print(LEAKS, *leaked, sep="\n", flush=True)
    if only == "leaks":
        return
    print(HEAD)
    rows = [in_the_clear().row("in the clear", "float32")]
    print(rows[0], flush=True)
    for name in [only] if only else privacy.names():
        for row in measured(name):
            rows.append(row)
            print(row, flush=True)
    if not only:
        day = datetime.now(UTC).date().isoformat()
        Path(__file__).with_name("results").joinpath(f"{day}-privacy.md").write_text(page(rows, leaked, day))


if __name__ == "__main__":
    main()
