"""Steps 7 to 9: strangers get nothing, the operator's own model is served beside, and the books are closed."""

from __future__ import annotations

import time
from collections.abc import Callable

import httpx
import numpy as np

from cellwright.bundle.keys import public_pem, signing_key
from cellwright.hub import contract as c
from cellwright.hub.core import Who
from cellwright.hub.refusals import NotFound
from cellwright.hub.service import open_hub
from tourist_guide import forecaster
from tourist_guide.cast import COMPANY, FOREIGN, MODEL_A, SERVICE, Cast, Row, until
from tourist_guide.places import COMMERCIAL, PHONE, SPOTS
from tourist_guide.placing import sha256

_HOUR_S = 3_600.0


# -- step 7


def keep_out(cast: Cast) -> None:
    """Company B, with sound tokens of its own, and a device whose leave has run out."""
    tell, stranger = cast.telling, cast.clients[FOREIGN]
    tell.holds(stranger.models() == () and stranger.models(shared=True) == (), "company B lists models and sees none")
    words = {_words(lambda name=name: stranger.release(name, "1.0.0")).replace(name, "…") for name in (MODEL_A, "no-model")}
    tell.holds(len(words) == 1 and words != {""}, f"a model of company A and one that is not there get one answer: {words.pop()}")
    asked = c.MatchAsk(device="stranger", service=SERVICE, location=SPOTS[COMMERCIAL])
    said = _words(lambda: stranger.match(asked))
    tell.holds(bool(said), f"its devices are matched with nothing of company A's: {said}")
    own = stranger.grant(c.GrantAsk(device="stranger")).grant
    there, nowhere = (_status(cast, own, model) for model in (MODEL_A, "no-model"))
    tell.holds(there[0] == 403 and there == nowhere, f"with its own grant the edge answers {there[0]}, whatever is asked for")
    answer = _status(cast, _expired(cast), MODEL_A)
    tell.holds(answer[0] == 401 and "expired" in answer[1], f"an expired grant is refused: {answer[0]}, {answer[1]}")
    tell.holds(_status(cast, "", MODEL_A)[0] == 401, "and so is whoever shows none")


def _expired(cast: Cast) -> str:
    """A grant that the hub gave an hour ago: the same hub, its clock set back."""
    with open_hub(cast.hub_folder, clock=lambda: time.time() - _HOUR_S) as earlier:
        company = Who("story", COMPANY, "story", frozenset({"device"}))
        return earlier.grant(company, c.GrantAsk(device=PHONE, lifetime_s=600)).grant


def _words(ask: Callable[[], object]) -> str:
    """How the hub says no; empty: it did not."""
    try:
        ask()
    except NotFound as error:
        return str(error)
    return ""


def _status(cast: Cast, grant: str, model: str) -> tuple[int, str]:
    url = f"{cast.edges[COMMERCIAL]}/v1/tenants/{COMPANY}/bundles/{model}/latest"
    answer = httpx.get(url, headers={"Authorization": f"Bearer {grant}"} if grant else {}, trust_env=False)
    return answer.status_code, str(answer.json().get("detail", ""))


# -- step 8


def own_business(cast: Cast) -> None:
    """The operator uploads a forecasting bundle that it signed itself; the same edges serve it."""
    tell, folder = cast.telling, cast.folder / "operator"
    folder.mkdir(exist_ok=True)
    key = signing_key(folder / "keys")
    made = forecaster.make(folder, key, cast.sizes.seed)
    cast.operator.add_key(public_pem(key.public_key()).decode())
    form = c.UploadForm(
        model=forecaster.NAME, version=forecaster.VERSION, format="modelpack", bytes=made.archive.stat().st_size,
        sha256=sha256(made.archive), figures=c.Figures(task="traffic forecast"),
    )  # fmt: skip
    cast.operator.upload(made.archive, form)
    cast.operator.place(forecaster.NAME, c.PlacementForm(model=forecaster.NAME))
    cast.operator.publish(forecaster.NAME, c.Publication(version=forecaster.VERSION))
    grant = cast.operator.grant(c.GrantAsk(device="load-control", models=(forecaster.NAME,))).grant
    for edge, url in cast.edges.items():
        until(lambda edge=edge: cast.served(edge, forecaster.NAME, grant, c.OPERATOR), cast.sizes.patience_s, "the edge holds it")
        answer = httpx.post(
            f"{url}/v1/tenants/{c.OPERATOR}/forecast", json=made.request, headers={"Authorization": f"Bearer {grant}"}, trust_env=False
        ).raise_for_status().json()  # fmt: skip
        found = next(iter(answer["forecasts"].values()))["load"]
        tell.holds(
            bool(np.allclose(found, made.expected, rtol=1e-4)),
            f"{edge} forecasts the load of its cells: {', '.join(f'{v:.1f}' for v in found)} Mbit/s, as the model says elsewhere",
        )
    tell.holds(
        _words(lambda: cast.company.release(forecaster.NAME, forecaster.VERSION)) != "",
        "company A cannot see the operator's model",
    )


# -- step 9


def close(cast: Cast) -> None:
    """The table, the audit log, and that nothing is left over."""
    tell = cast.telling
    for line in table(cast.rows):
        tell.line(line)
    verdict = cast.operator.verify_audit()
    tell.holds(verdict.ok, f"the hub's audit log is as it was written: {verdict.records} rows, head {verdict.head[:16]}…")
    left = cast.sessions()
    open_ = [record.session for record in cast.company.qos() if record.ended_s is None]
    tell.holds(
        not left and not open_, f"no QoS session is left over: {len(left)} in the network, {len(open_)} in the hub's books"
    )
    failed = [edge for edge, url in cast.edges.items() if httpx.get(f"{url}/readyz", trust_env=False).json()["problems"]]
    tell.holds(not failed, "no edge has a problem")


def table(rows: list[Row]) -> list[str]:
    """A line a fetch."""
    heads = ("fetch", "model", "bytes", "s", "Mbit/s", "deadline", "met", "QoS session", "edges", "resumed", "patch")
    lines = [heads] + [_cells(row) for row in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def _cells(row: Row) -> tuple[str, ...]:
    got, moved = row.fetched, row.fetched.transfer
    quality = got.qos
    return (
        row.what,
        f"{got.name} {got.version}",
        f"{moved.received_bytes:,}",
        f"{got.verified_s:.2f}",
        f"{8 * moved.received_bytes / got.verified_s / 1e6:.1f}",
        "none" if got.deadline_s is None else f"{got.deadline_s:g} s",
        {None: "-", True: "yes", False: "no"}[got.met],
        f"{quality.profile}, {quality.state}" if quality else "none",
        " > ".join(stop.name for stop in got.edges),
        f"{moved.resumed_bytes:,}",
        f"{got.delta}, {moved.reused_bytes:,} reused" if got.delta else "none",
    )
