"""How the hub is asked: one HTTP client with a token; refusals become the kinds of refusals.py."""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import httpx
from pydantic import ValidationError

from cellwright.errors import HubError, HubRefused
from cellwright.hub.contract import Wire, told
from cellwright.hub.refusals import STATUS, TooMany

_TIMEOUT = httpx.Timeout(30.0, connect=5.0)
_Form = TypeVar("_Form")


class Asking:
    """One hub, asked with one token. `http` is the client, for `cellwright.edge.download.Download`."""

    def __init__(self, url: str, token: str | None, *, ca: Path | None = None, timeout_s: float | None = None) -> None:
        """`ca`: certificate authority (PEM) of a hub whose certificate is not by a public one. Over https it is always checked."""
        self.url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.tls: ssl.SSLContext | bool = ssl.create_default_context(cafile=str(ca)) if ca else self.url.startswith("https:")
        timeout = httpx.Timeout(timeout_s) if timeout_s else _TIMEOUT
        self.http = httpx.Client(base_url=self.url, headers=headers, verify=self.tls, timeout=timeout, trust_env=False)

    def _get(self, path: str, kind: type[_Form], params: Mapping[str, str] | None = None) -> _Form:
        return self._parsed(self._send("GET", path, params=dict(params or {})), kind)

    def _put(self, path: str, form: Wire, kind: type[_Form]) -> _Form:
        return self._parsed(self._send("PUT", path, json=form.model_dump(mode="json")), kind)

    def _post(self, path: str, form: Wire, kind: type[_Form]) -> _Form:
        return self._parsed(self._send("POST", path, json=form.model_dump(mode="json")), kind)

    def _send(self, method: str, path: str, **how: Any) -> httpx.Response:
        """Ask once. Raises HubError where the hub cannot be reached."""
        try:
            return self._raw(method, path, **how)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def _raw(self, method: str, path: str, **how: Any) -> httpx.Response:
        """Ask once; what breaks on the way is httpx's error, so that an upload can go on."""
        answer = self.http.request(method, path, **how)
        if answer.is_success or answer.status_code == httpx.codes.NOT_MODIFIED:
            return answer
        raise _refusal(answer)

    def _parsed(self, answer: httpx.Response, kind: type[_Form]) -> _Form:
        try:
            return told(kind, answer.content)
        except ValidationError as error:
            raise HubError(
                f"{self.url} answered something else than expected ({error.errors()[0]['msg']}); is it a hub?"
            ) from None

    def _unreachable(self, error: Exception) -> HubError:
        if isinstance(error, HubError):
            return error
        return HubError(
            f"cannot reach a hub at {self.url} ({error or type(error).__name__}); start one with `cellwright hub serve`"
        )


def _refusal(answer: httpx.Response) -> HubError:
    """The hub's own words, as the kind that its status stands for."""
    try:
        detail = str(json.loads(answer.content[:65_536])["detail"])
    except (ValueError, KeyError, TypeError):
        detail = f"{answer.status_code} {answer.reason_phrase}"
    if answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
        wait = answer.headers.get("Retry-After", "1")
        return TooMany(detail, float(wait) if wait.isdigit() else 1.0)
    kinds = {status: kind for kind, status in STATUS.items()}
    kind: type[HubError] = kinds.get(answer.status_code, HubRefused if answer.is_client_error else HubError)
    return kind(detail[:2_000])


def owned(owner: str | None) -> dict[str, str]:
    return {} if owner is None else {"owner": owner}


def query(owner: str | None) -> str:
    return "" if owner is None else f"?owner={owner}"
