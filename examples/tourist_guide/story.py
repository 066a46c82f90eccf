"""The nine steps, one after the other."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from road_anomalies.telling import Say, Telling

from cellwright.errors import CellwrightError
from cellwright.hub import contract as c
from cellwright.hub.client import HubClient
from cellwright.hub.core import LOCAL
from cellwright.hub.service import open_hub
from cellwright.qos.simulator.remote import Remote
from tourist_guide import fetching, guarding, placing, servers, weights
from tourist_guide.cast import Cast, Row, Sizes
from tourist_guide.places import network


@dataclass(frozen=True)
class Told:
    """What came of it."""

    broken: tuple[str, ...]  # promises that did not hold
    rows: tuple[Row, ...]


def main(arguments: Sequence[str] | None = None, *, say: Say = print) -> int:
    """Tell the story; 0 if every promise held."""
    sizes, folder = _asked(arguments)
    try:
        told = tell(sizes, say=say, folder=folder)
    except CellwrightError as error:
        say(f"\nthe story broke off: {error}")
        return 1
    say(f"\n{'every promise held' if not told.broken else 'did not hold: ' + '; '.join(told.broken)}")
    return 1 if told.broken else 0


def tell(sizes: Sizes, *, say: Say = print, folder: Path | None = None) -> Told:
    """All nine steps. `folder`: where everything is kept, empty or new; None: a temporary one. Raises CellwrightError."""
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="tourist-guide-") as made:
            return tell(sizes, say=say, folder=Path(made))
    with ExitStack() as stack:
        cast = _opened(sizes, folder, Telling(say), stack)
        _nine_steps(cast, stack)
        return Told(tuple(cast.telling.broken), tuple(cast.rows))


def _nine_steps(cast: Cast, stack: ExitStack) -> None:
    step = cast.telling.step
    step(1, "company A leases room in the operator's cloud and uploads its models")
    placing.lease(cast)
    for client in cast.clients.values():
        stack.enter_context(closing(client))
    step(2, "model A belongs in the commercial area, model B in the resort; the edges bring them")
    placing.place(cast, stack)
    step(3, "a phone arrives in the commercial area; the edge triggers the acceleration")
    accelerated = fetching.arrive(cast)
    step(4, "the same without quality of service")
    fetching.without(cast, accelerated)
    step(5, "the phone sets out for the resort and gets there while it downloads")
    fetching.move(cast)
    step(6, "company A publishes a new version of model A")
    fetching.renew(cast)
    step(7, "strangers")
    guarding.keep_out(cast)
    step(8, "the operator's own business")
    guarding.own_business(cast)
    step(9, "the books")
    guarding.close(cast)


def _opened(sizes: Sizes, folder: Path, telling: Telling, stack: ExitStack) -> Cast:
    """The operator's hub with its first token, and the network; both end with the stack."""
    kept = folder / "hub"
    with open_hub(kept) as hub:  # as `cellwright hub init`
        token = hub.new_token(LOCAL, c.OPERATOR, c.TokenForm(name="operator", scopes=("operator",))).token
    hub_url = stack.enter_context(servers.process(servers.hub, kept))
    state = stack.enter_context(servers.process(servers.network, network(sizes.bytes, sizes.slow_s)))
    operator = stack.enter_context(HubClient(hub_url, token))
    remote = stack.enter_context(Remote(state.url, state.control_token))
    return Cast(sizes, folder, telling, kept, hub_url, operator, state, remote)


def _asked(arguments: Sequence[str] | None) -> tuple[Sizes, Path | None]:
    told = Sizes()
    parser = argparse.ArgumentParser(prog="tourist_guide.py", description="The story of 3GPP TR 22.874, 6.2, on this machine.")
    parser.add_argument(
        "--bytes", type=int, default=told.bytes, help="of a model (default: %(default)s; the use case: 536870912)"
    )
    parser.add_argument("--deadline", type=float, default=told.deadline_s, help="seconds for a model (default: %(default)s)")
    parser.add_argument("--held", type=float, default=told.held_within_s, help="seconds for a new version (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="keep everything here instead of in a temporary folder")
    found = parser.parse_args(arguments)
    if found.bytes % 4 or found.bytes < weights.LEAST_BYTES:
        parser.error(f"--bytes must be a multiple of 4 and at least {weights.LEAST_BYTES}")
    return Sizes(bytes=found.bytes, deadline_s=found.deadline, held_within_s=found.held), found.folder
