"""Steps 3 to 6: the phone arrives, with and without quality of service, moves while it downloads, and gets a new version."""

from __future__ import annotations

import threading
import time
from typing import Literal

from cellwright.edge.fetched import Fetched
from cellwright.hub import contract as c
from cellwright.qos.choice import spoken
from tourist_guide.cast import COMPANY, MODEL_A, Cast, Row, here, until
from tourist_guide.places import COMMERCIAL, PHONE, RESORT
from tourist_guide.placing import made, sha256, upload

_OVERHEAD = 1.02  # documents and signatures of a bundle, beside its weights
_FIRST, _SECOND = "first", "second"  # the phone's memory; the second is empty in step 4
_MOVES_AT = 0.25  # of the model's bytes
_UNHURRIED = 1.5  # deadline of the way to the resort, of the time that it takes without quality: the least profile will do


# -- steps 3 and 4


def arrive(cast: Cast) -> Fetched:
    """In the commercial area: closest edge, quality triggered by that edge, download, verification, activation, report."""
    tell, sizes = cast.telling, cast.sizes
    cast.at(COMMERCIAL)
    got = _get(cast, "with QoS", _FIRST, qos="edge")
    quality = got.qos
    tell.line(f"the hub: {got.name} {got.version}, because {got.why}")
    tell.line(f"needed: {spoken(8 * sizes.bytes / sizes.deadline_s)}; the edge asked for {quality.profile if quality else None}")
    tell.holds(_edges(got) == [COMMERCIAL], "it came from the edge that the network says is closest")
    tell.holds(
        quality is not None and quality.state == "available" and quality.session is not None,
        "the edge triggered the session, and the network granted it",
    )
    tell.holds(got.met is True, f"verified {got.verified_s:.2f} s after the request, and {sizes.deadline_s:g} s are promised")
    _same(cast, got, _FIRST)
    record, _ = until(
        lambda: next((r for r in cast.company.qos() if quality and r.session == quality.session and r.ended_s), None),
        sizes.patience_s,
        "the hub's record of the session",
    )
    tell.holds(
        record is not None and record.asked_by == "edge" and not cast.sessions(),
        f"the session lasted as long as the transfer; the hub's record: {record.status if record else None}",
    )
    _reported(cast, got)
    return got


def without(cast: Cast, before: Fetched) -> Fetched:
    """The same phone with an empty memory, at the same place; nobody asks the network."""
    tell = cast.telling
    got = _get(cast, "without QoS", _SECOND, qos="none")
    tell.holds(got.met is False, f"verified after {got.verified_s:.2f} s: the deadline of {cast.sizes.deadline_s:g} s is missed")
    tell.holds(got.qos is None and not cast.sessions(), "no session was asked for")
    _same(cast, got, _SECOND)
    _reported(cast, got)
    tell.line(f"{'':14}{'with QoS':>12}{'without':>12}")
    tell.line(f"{'seconds':14}{before.verified_s:12.2f}{got.verified_s:12.2f}")
    tell.line(f"{'Mbit/s':14}{_rate(before) / 1e6:12.1f}{_rate(got) / 1e6:12.1f}")
    return got


# -- step 5


def move(cast: Cast) -> Fetched:
    """Model B, asked for on the way: begun at the commercial area's edge, ended at the resort's."""
    tell, sizes = cast.telling, cast.sizes
    before = {name: cast.carried_bytes(name) for name in cast.edges}
    mover = threading.Thread(target=_moves, args=(cast, before[COMMERCIAL]), name="tourist", daemon=True)
    mover.start()
    got = _get(cast, "moving", _FIRST, qos="edge", place=RESORT, deadline_s=_UNHURRIED * sizes.slow_s)
    mover.join()
    carried = {name: cast.carried_bytes(name) - before[name] for name in cast.edges}
    tell.line(f"carried by the network: {', '.join(f'{size:,} bytes from {name}' for name, size in carried.items())}")
    for note in got.notes:
        tell.line(f"the phone notes: {note}")
    tell.holds(_edges(got) == [COMMERCIAL, RESORT], "the download went on at the next edge")
    tell.holds(
        got.transfer.received_bytes <= _OVERHEAD * sizes.bytes + 65_536 and carried[RESORT] < sizes.bytes,
        f"it did not start over: {got.transfer.received_bytes:,} bytes were received for {sizes.bytes:,}",
    )
    tell.holds(got.qos is not None and got.qos.state == "available", "the resort's edge triggered a session of its own")
    until(lambda: not cast.sessions(), 10.0, "both edges' sessions end")
    tell.holds(True, "neither edge's session is left")
    _same(cast, got, _FIRST)
    _reported(cast, got)
    return got


def _moves(cast: Cast, before: int) -> None:
    """The tourist is carried to the resort once a quarter of the model is there."""
    while cast.carried_bytes(COMMERCIAL) - before < _MOVES_AT * cast.sizes.bytes:
        time.sleep(0.05)
    cast.at(RESORT)


# -- step 6


def renew(cast: Cast) -> Fetched:
    """A fine-tuned model A: at the edge at once, on the phone by a patch."""
    tell, sizes = cast.telling, cast.sizes
    cast.at(COMMERCIAL)
    made(cast, MODEL_A, "2.0.0", seed=sizes.seed, tuned=sizes.seed + 100)
    upload(cast, MODEL_A, "2.0.0")
    grant = cast.company.grant(c.GrantAsk(device=PHONE, models=(MODEL_A,))).grant
    cast.company.publish(MODEL_A, c.Publication(version="2.0.0"))
    _, seconds = until(lambda: _latest(cast, grant) == "2.0.0", sizes.patience_s, "the edge serves the new version")
    tell.holds(
        seconds <= sizes.held_within_s,
        f"the edge verified and served 2.0.0 {seconds:.2f} s after its publication; {sizes.held_within_s:g} s are promised",
    )
    _, seconds = until(lambda: _patched(cast, grant), sizes.patience_s, "the edge offers a patch from 1.0.0", pause_s=0.1)
    tell.line(f"the edge had the patch ready {seconds:.2f} s later")
    got = _get(cast, "new version", _FIRST, qos="edge")
    tell.holds(
        got.version == "2.0.0" and got.delta is not None,
        f"the phone rebuilt 2.0.0 from 1.0.0 by a patch ({got.delta})" if got.delta else "the phone used a patch",
    )
    tell.holds(
        got.transfer.received_bytes < sizes.bytes / 4,
        f"{got.transfer.received_bytes:,} bytes instead of {sizes.bytes:,} ({got.transfer.received_bytes / sizes.bytes:.1%})",
    )
    for note in got.notes:
        tell.line(f"the phone notes: {note}")
    _same(cast, got, _FIRST)
    _reported(cast, got)
    return got


def _latest(cast: Cast, grant: str) -> str | None:
    told = cast.served(COMMERCIAL, MODEL_A, grant)
    return None if told is None else str(told["version"])


def _patched(cast: Cast, grant: str) -> bool:
    told = cast.served(COMMERCIAL, MODEL_A, grant)
    return told is not None and any(layer.get("patches") for layer in told["layers"].values())


# -- all of them


def _get(
    cast: Cast, what: str, memory: str, *, qos: Literal["edge", "none"], place: str = COMMERCIAL, deadline_s: float | None = None
) -> Fetched:
    within_s = cast.sizes.deadline_s if deadline_s is None else deadline_s
    got = cast.phone(memory).get(cast.company, here(place), deadline_s=within_s, qos=qos, network=cast.cloud)
    cast.rows.append(Row(what, got))
    return got


def _same(cast: Cast, got: Fetched, memory: str) -> None:
    """What is active on the phone is what company A uploaded."""
    layer = cast.company.release(got.name, got.version).layers["model.safetensors"]
    found = sha256(got.path / "blobs" / "sha256" / layer.removeprefix("sha256:"))
    active = cast.phone(memory).of(COMPANY).active()
    cast.telling.holds(
        found == sha256(cast.files[f"{got.name} {got.version}"]) and active.get(got.name) == got.version,
        f"{got.name} {got.version} is active on the phone, byte for byte what company A uploaded ({found[:16]}…)",
    )


def _reported(cast: Cast, got: Fetched) -> None:
    """The report came to the hub, and says what happened."""

    def new() -> list[c.FetchReport]:
        found = cast.company.fetches()
        return [r for r in found if r.id not in cast.reported and (r.model, r.version) == (got.name, got.version)]

    found, seconds = until(new, cast.sizes.patience_s, "the fetch is reported", pause_s=0.05)
    report = found[0]
    cast.reported.add(report.id)
    cast.telling.holds(
        report.outcome == "activated" and report.met == got.met and report.bytes == got.transfer.received_bytes,
        f"the hub has the report {seconds:.1f} s later: {report.bytes:,} bytes, {report.seconds:.2f} s, "
        f"deadline {'met' if report.met else 'missed'}",
    )


def _edges(got: Fetched) -> list[str]:
    return [stop.name for stop in got.edges]


def _rate(got: Fetched) -> float:
    return 8 * got.transfer.received_bytes / got.verified_s
