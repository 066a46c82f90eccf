"""Asking the edges what they have seen. Who cannot be asked is named, and what was known of it is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from cellwright.edge.evidence import Evidence

if TYPE_CHECKING:
    import httpx

_TIMEOUT_S = 5.0
_MOST_BYTES = 64 * 1024**2
_MOST_AT_ONCE = 16
_NOT_FOUND = 404
Believes = Callable[[Evidence], bool]


class Watch:
    """All edges of one rollout. `seen`: what is known of them so far, an edge that restarted with what it knew before."""

    def __init__(self, seen: tuple[Evidence, ...] = (), *, ca: Path | None = None) -> None:
        """`seen`: what a controller before this one has kept. `ca`: certificate authority (PEM) of edges that serve over TLS."""
        import ssl

        import httpx

        tls = ssl.create_default_context(cafile=str(ca)) if ca else True
        self._http = httpx.Client(timeout=_TIMEOUT_S, verify=tls, trust_env=False)
        self._lives: dict[str, list[Evidence]] = {}
        for each in seen:
            self._lives.setdefault(each.edge, []).append(each)

    @property
    def seen(self) -> tuple[Evidence, ...]:
        """What all edges have seen."""
        return tuple(each for lives in self._lives.values() for each in lives)

    def poll(self, edges: Mapping[str, str], headers: Mapping[str, str], model: str, believes: Believes) -> dict[str, str]:
        """Ask all edges (name -> address); returns those that gave nothing, and why."""
        if not edges:
            return {"edges": "no edge holds the model yet"}
        with ThreadPoolExecutor(min(_MOST_AT_ONCE, len(edges))) as pool:
            answers = dict(zip(edges, pool.map(lambda url: self._ask(url, headers, model), edges.values()), strict=True))
        waiting = {}
        for name, answer in answers.items():
            if isinstance(answer, str):
                waiting[name] = answer
            elif not believes(answer):
                waiting[name] = f"it still compares {answer.challenger} with {answer.champion}"
            else:
                self._learn(answer.model_copy(update={"edge": name}))
        return waiting

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _learn(self, found: Evidence) -> None:
        """The newest evidence of an edge's life in place of the older; less than before means that it has restarted."""
        lives = self._lives.setdefault(found.edge, [])
        if lives and _answered(found) >= _answered(lives[-1]):
            lives[-1] = found
        else:
            lives.append(found)

    def _ask(self, url: str, headers: Mapping[str, str], model: str) -> Evidence | str:
        """Evidence, or in words why there is none."""
        import httpx

        try:
            with self._http.stream("GET", url, params={"bundle": model}, headers=dict(headers)) as answer:
                return _evidence(answer)
        except httpx.HTTPError as error:
            return f"it cannot be reached: {error or type(error).__name__}"


def _evidence(answer: httpx.Response) -> Evidence | str:
    if answer.status_code == _NOT_FOUND:
        return "it does not try the version out yet"
    if not answer.is_success:
        return f"it answers {answer.status_code} {answer.reason_phrase}"
    content = bytearray()
    for part in answer.iter_bytes():
        content += part
        if len(content) > _MOST_BYTES:
            return f"its evidence has more than {_MOST_BYTES} bytes"
    try:
        return Evidence.model_validate_json(bytes(content))
    except ValidationError as error:
        return f"its answer is no evidence ({error.errors()[0]['msg']}); is it an edge?"


def _answered(found: Evidence) -> int:
    return sum(c.requests for c in found.counts.values()) + len(found.errors) + len(found.energy)
