"""Forecasts over HTTP: the request's body in, the answer of the model that serves it out.

Where a version is on trial, some requests are answered by it, and a share is computed by both. A challenger that fails costs nobody an
answer: the champion gives it, and the failure counts against the challenger.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any
from weakref import WeakKeyDictionary

import orjson
from aiohttp import web

from cellwright.bundle.manifest import Manifest
from cellwright.edge.batching import Batches, Ran
from cellwright.edge.predictor import Predictor
from cellwright.edge.request import Asked, RequestError
from cellwright.edge.shelf import Shelf, Snapshot
from cellwright.edge.slots import Slots
from cellwright.edge.trialling import Side, asked_by

log = logging.getLogger(__name__)
_BODY_TIMEOUT_S = 30.0
ALLOWED: web.RequestKey[Snapshot] = web.RequestKey("allowed", Snapshot)  # where a grant restricts what may be asked for
_MOST_TRUTHS = 10_000  # steps in one POST of truth
_DEAR_S, _REST = 0.005, 20  # evidence that took longer is written again after so many times that


class Forecasting:
    """POST of a forecast's request (see request.py) to a shelf's models."""

    def __init__(
        self,
        shelf: Shelf,
        slots: Slots,
        body_bytes: int,
        budget_s: float,
        believes: Callable[[web.Request], bool] | None = None,
    ) -> None:
        """`budget_s`: no batch grows longer than what is expected to run within it; `believes`: who may tell the truth, None: all."""
        self._shelf, self._slots, self._body_bytes = shelf, slots, body_bytes
        self._batches = Batches(slots.pool, slots.workers, budget_s)
        self._believes = believes
        self._sides: dict[str, Side] = {}
        self._evidence: WeakKeyDictionary[Side, tuple[float, bytes]] = WeakKeyDictionary()  # until when it may be told again
        self._shadows: set[asyncio.Task[None]] = set()
        self.used: Callable[[Manifest], None] | None = None  # told of each forecast: popularity

    @property
    def pending(self) -> int:
        """Forecasts running or waiting."""
        return self._slots.taken

    def add_to(self, router: web.UrlDispatcher, *prefixes: str) -> None:
        """Serve `<prefix>/forecast`, `/truth` and `/evidence`."""
        for prefix in prefixes:
            router.add_post(f"{prefix}/forecast", self.answer)
            router.add_post(f"{prefix}/truth", self.truth)
            router.add_get(f"{prefix}/evidence", self.evidence)

    async def close(self) -> None:
        """Let running forecasts end."""
        await asyncio.gather(*self._shadows, return_exceptions=True)
        self._slots.close()

    async def answer(self, request: web.Request) -> web.Response:
        """Answer one request."""
        started = time.perf_counter()
        asked = await self._json(request)
        with self._slots.slot(), nullcontext() if self._believes is None else asked_by(believed=self._believes(request)):
            body = orjson.dumps(await self._forecast(asked, started, self._now(request)))  # all of its numbers are finite
        return web.Response(body=body, content_type="application/json")

    async def truth(self, request: web.Request) -> web.Response:
        """What was measured: {"bundle", "times": [epoch ms], "values": {site: {target: [a value or null a time]}}}."""
        if self._believes is not None and not self._believes(request):
            raise RequestError(
                403, "the truth is believed of whoever shows the token in edge.truth_token_file (Authorization: Bearer …)"
            )
        body = await self._json(request)
        name, side = self._side_of(body, self._now(request))
        settled = 0 if side is None else sum(side.truth(*row) for row in _truths(body, side))
        return web.json_response({"bundle": name, "settled": settled})

    async def evidence(self, request: web.Request) -> web.Response:
        """What was seen of the champion and the version on trial."""
        asked = {"bundle": request.query["bundle"]} if "bundle" in request.query else {}
        name, side = self._side_of(asked, self._now(request))
        if side is None:
            raise RequestError(404, f"no version of {name} is on trial here")
        return web.Response(body=self._told(side, _here(request)), content_type="application/json")

    def _told(self, side: Side, edge: str) -> bytes:
        """A trial's evidence. What took long to write is told again for a while: whoever asks, it costs a twentieth of a core."""
        begun = time.perf_counter()
        known = self._evidence.get(side)
        if known is not None and begun < known[0]:
            return known[1]
        body = side.evidence(edge).model_dump_json().encode()
        ended = time.perf_counter()
        if ended - begun > _DEAR_S:
            self._evidence[side] = (ended + _REST * (ended - begun), body)
        return body

    async def _json(self, request: web.Request) -> Any:
        if (request.content_length or 0) > self._body_bytes:
            raise web.HTTPRequestEntityTooLarge(self._body_bytes, request.content_length or 0)
        body = await (request.read() if request.content.is_eof() else _arriving(request))
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise RequestError(400, f"the body is not JSON: {_why(body, error)}") from None

    def _now(self, request: web.Request) -> Snapshot:
        """What may be asked for: all of the shelf, or what a grant allows of it."""
        return request.get(ALLOWED) or self._shelf.snapshot

    async def _forecast(self, request: Any, started: float, now: Snapshot) -> dict[str, Any]:
        # `now` is of one moment: whatever is replaced meanwhile, this request meets whole versions
        champion = now.predictor(request.get("bundle") if isinstance(request, dict) else None)
        side = self._side(now, champion)
        asked = champion.parse(request)
        if self.used is not None:
            self.used(champion.manifest)
        if side is None:
            return champion.answer(asked, (await self._batches.run(champion, asked)).forecast)
        side.learn(request["history"], asked.first_ms)
        chosen = side.choose(asked.sites)
        if chosen is side.challenger:
            answer, ran = await self._of_challenger(side, request, asked, started)
        else:
            answer, ran = await self._of_champion(side, asked, started)
        self._shadow(side, request, asked, ran, chosen)
        return answer

    async def _of_champion(self, side: Side, asked: Asked, started: float) -> tuple[dict[str, Any], Ran]:
        """The champion's answer; nobody stands in for it."""
        failed = True
        try:
            ran = await self._run(side, side.champion, asked)
            answer = side.champion.answer(asked, ran.forecast)
            failed = False
        finally:
            side.answered(side.champion.manifest.version, time.perf_counter() - started, failed=failed)
        return answer, ran

    async def _of_challenger(self, side: Side, request: Any, asked: Asked, started: float) -> tuple[dict[str, Any], Ran | None]:
        """The challenger's answer; the champion's where it fails, and then no output of the challenger's."""
        version = side.challenger.manifest.version
        try:
            own = side.challenger.parse(request)
            ran = await self._run(side, side.challenger, own)
            answer = side.challenger.answer(own, ran.forecast)
        except Exception:  # whatever it is, it is the challenger's failure and must not become the client's
            log.exception("%s %s failed; the champion answers", side.name, version)
            side.answered(version, time.perf_counter() - started, failed=True)
            return side.champion.answer(asked, (await self._run(side, side.champion, asked)).forecast), None
        side.answered(version, time.perf_counter() - started, failed=False)
        return answer, ran

    async def _run(self, side: Side, predictor: Predictor, asked: Asked) -> Ran:
        ran = await self._batches.run(predictor, asked)
        side.ran(predictor.manifest.version, len(asked.history), ran.cpu_s, round(1000 * time.time()))
        return ran

    def _shadow(self, side: Side, request: Any, asked: Asked, ran: Ran | None, chosen: Predictor) -> None:
        """Let the other version compute the same request, after the answer; left out where the edge is busy."""
        if ran is None or self._slots.busy or not side.shadows():
            return
        task = asyncio.get_running_loop().create_task(self._both(side, request, asked, ran, chosen))
        self._shadows.add(task)
        task.add_done_callback(self._shadows.discard)

    async def _both(self, side: Side, request: Any, asked: Asked, ran: Ran, chosen: Predictor) -> None:
        other = side.challenger if chosen is side.champion else side.champion
        alone = other is side.challenger and side.only_computes  # it answers nobody, so this is where it is counted
        started = time.perf_counter()
        try:
            own = other.parse(request)
            second = await self._run(side, other, own)
            if alone:
                other.answer(own, second.forecast)
        except Exception:  # nobody waits for it; a challenger that answers is counted where it does
            log.exception("%s %s failed beside the other version", side.name, other.manifest.version)
            if alone:
                side.answered(other.manifest.version, time.perf_counter() - started, failed=True)
            return
        if alone:
            side.answered(other.manifest.version, time.perf_counter() - started, failed=False)
        mine, theirs = ran.forecast, second.forecast
        side.forecast(asked, *((mine, theirs) if chosen is side.champion else (theirs, mine)))

    def _side(self, now: Snapshot, champion: Predictor) -> Side | None:
        """The trial of a champion's name, as it stands."""
        name = champion.manifest.name
        tried, side = now.trials.get(name), self._sides.get(name)
        if tried is None:
            if side is not None:
                del self._sides[name]
            return None
        if side is None or not side.same(champion, tried):
            side = self._sides[name] = Side(name, champion, tried)
        elif side.trial is not tried.trial:
            side.change(tried.trial)
        return side

    def _side_of(self, body: Any, now: Snapshot) -> tuple[str, Side | None]:
        if not isinstance(body, dict):
            raise RequestError(400, "expected a JSON object with bundle, times and values")
        champion = now.predictor(body.get("bundle"))
        return champion.manifest.name, self._side(now, champion)


def _here(request: web.Request) -> str:
    """The address that was asked, by the socket: what a client calls it is told to nobody else."""
    host, port, *_ = (request.transport.get_extra_info("sockname") if request.transport else None) or ("", 0)
    return f"{host}:{port}"


async def _arriving(request: web.Request) -> bytes:
    """A body that is still on its way. Raises RequestError (408)."""
    try:
        async with asyncio.timeout(_BODY_TIMEOUT_S):
            return await request.read()
    except TimeoutError:
        raise RequestError(408, f"the body did not arrive within {_BODY_TIMEOUT_S:g} s") from None


def _truths(body: dict[str, Any], side: Side) -> list[tuple[int, str, list[float | None]]]:
    """(at_ms, site, value of each target). Raises RequestError (400)."""
    targets = side.champion.problem.targets
    times, values = body.get("times"), body.get("values")
    if not isinstance(times, list) or not all(type(t) is int for t in times) or not isinstance(values, dict):
        raise RequestError(400, "expected 'times', a list of epoch milliseconds, and 'values', site -> target -> a value a time")
    if len(times) * len(values) > _MOST_TRUTHS:
        raise RequestError(413, f"{len(times)} times of {len(values)} sites; send at most {_MOST_TRUTHS} together")
    rows: list[tuple[int, str, list[float | None]]] = []
    for site, given in values.items():
        if not isinstance(given, dict) or not all(_series(given.get(t), len(times)) for t in targets):
            raise RequestError(
                400, f"'values.{site[:80]}' must give {len(times)} numbers or nulls for each of {', '.join(targets)}"
            )
        rows += [(at_ms, site, [given[t][i] for t in targets]) for i, at_ms in enumerate(times)]
    return rows


def _series(values: Any, count: int) -> bool:
    return (
        isinstance(values, list)
        and len(values) == count
        and all(v is None or (type(v) in (int, float) and abs(v) <= _LARGEST) for v in values)
    )


def _why(body: bytes, error: ValueError) -> str:
    """With what to do about the mistake that is made most."""
    found = _CONSTANT.search(body)
    return f"{found[0].decode()} is not a JSON number; write null where nothing was measured" if found else str(error)


_LARGEST = 3.4e38  # float32's, as in request.py
_CONSTANT = re.compile(rb"\bNaN\b|-?\bInfinity\b")
