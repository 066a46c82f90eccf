"""One HTTP client for the CAMARA APIs: bearer tokens, correlators, bounded answers, retries with backoff and jitter.

QosError
├── Unreachable     no answer came, or 5xx to the last; `maybe_done` tells whether the request may have been carried out
└── Denied          the network said no; `status` and `code` are the standard's
"""

from __future__ import annotations

import json
import random
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import uuid4

import httpx
from pydantic import TypeAdapter, ValidationError

from cellwright.errors import QosError, WrongUse
from cellwright.qos.forms import Problem

Token = str | Callable[[], str]  # a function is asked again when a token is no longer taken
_MOST_BYTES = 1 << 20
_RETRIED = frozenset({429, 500, 502, 503, 504})
_LONGEST_PAUSE_S = 30.0
_Form = TypeVar("_Form")


class Unreachable(QosError):
    """No usable answer, after all retries."""

    def __init__(self, message: str, *, maybe_done: bool) -> None:
        super().__init__(message)
        self.maybe_done = maybe_done


class Denied(QosError):
    """The network refused."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{code} ({status}): {message}")
        self.status, self.code = status, code


@dataclass(frozen=True)
class Retries:
    """How often and how patiently a request is repeated: full jitter over a doubling pause."""

    attempts: int = 5
    first_s: float = 0.1
    longest_s: float = 5.0
    rng: random.Random = field(default_factory=random.Random)  # spreads pauses; no secret
    sleep: Callable[[float], None] = time.sleep

    def pause(self, failures: int, asked_s: float | None = None) -> None:
        """Wait before the next attempt: as long as the network asked for (Retry-After), else a random part of the doubled pause."""
        most_s = min(self.longest_s, self.first_s * 2**failures)
        self.sleep(min(asked_s, _LONGEST_PAUSE_S) if asked_s is not None else self.rng.uniform(0, most_s))


class Transport:
    """Requests to one API root, e.g. `https://network.example`. Safe to use from several threads."""

    def __init__(
        self,
        root: str,
        token: Token,
        *,
        timeout_s: float = 10.0,
        retries: Retries | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`tls`: whom to trust where the network's certificate is not a public one.

        Raises:
            WrongUse: the root is no http(s) address.
        """
        if httpx.URL(root).scheme not in ("http", "https"):
            raise WrongUse(f"the network's address must start with https:// or http://, found '{root}'")
        self.root, self.retries, self._token = root.rstrip("/"), retries or Retries(), token
        self._http = httpx.Client(
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, 5.0)), verify=tls or _trust(root), trust_env=False
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def send(self, method: str, path: str, body: dict[str, Any] | None = None, *, repeat: bool = True) -> Any:
        """The answer's JSON, None where it has no content. All attempts carry one x-correlator.

        `repeat=False`: only what surely was not carried out (429, no connection) is repeated; for the rest see `Unreachable.maybe_done`.

        Raises:
            Denied: the network refused; not repeated, except 429 and 5xx.
            Unreachable: no answer, or none that can be understood.
        """
        headers = {"x-correlator": str(uuid4()), "Authorization": f"Bearer {self._bearer()}"}
        failure: QosError | None = None
        for failures in range(self.retries.attempts):
            answer = self._once(method, path, body, headers)
            if not isinstance(answer, httpx.Response):
                failure = answer
                if answer.maybe_done and not repeat:
                    break
                self._pause(failures, None)
                continue
            if answer.status_code == 401 and failures == 0 and callable(self._token):
                headers["Authorization"] = f"Bearer {self._bearer()}"  # it may have expired meanwhile
                continue
            if answer.status_code not in _RETRIED:
                return _content(answer)
            failure = _refusal(answer)
            if answer.status_code >= 500:
                failure = Unreachable(f"{self.root}{path}: {failure}", maybe_done=True)
                if not repeat:
                    break
            self._pause(failures, _retry_after_s(answer))
        raise failure or Unreachable(f"{self.root}{path} was not asked at all", maybe_done=False)

    def _pause(self, failures: int, asked_s: float | None) -> None:
        if failures + 1 < self.retries.attempts:
            self.retries.pause(failures, asked_s)

    def _bearer(self) -> str:
        return self._token() if callable(self._token) else self._token

    def _once(self, method: str, path: str, body: dict[str, Any] | None, headers: dict[str, str]) -> httpx.Response | Unreachable:
        try:
            with self._http.stream(method, f"{self.root}{path}", json=body, headers=headers) as response:
                return _read(response)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            return Unreachable(f"{self.root} cannot be reached ({error or type(error).__name__})", maybe_done=False)
        except httpx.HTTPError as error:
            return Unreachable(f"{self.root}{path}: the answer was lost ({error or type(error).__name__})", maybe_done=True)


def _trust(root: str) -> ssl.SSLContext | bool:
    """Public certificate authorities; where nothing is encrypted, none, as loading them takes tens of milliseconds."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if httpx.URL(root).scheme == "http" else True


def _read(response: httpx.Response) -> httpx.Response:
    """The response with its content, at most 1 MiB of it."""
    content = bytearray()
    for chunk in response.iter_bytes():
        content += chunk
        if len(content) > _MOST_BYTES:
            raise httpx.DecodingError(f"the answer is larger than {_MOST_BYTES} bytes")
    headers = [(k, v) for k, v in response.headers.items() if k not in ("content-encoding", "content-length")]
    return httpx.Response(response.status_code, headers=headers, content=bytes(content), request=response.request)


def _content(answer: httpx.Response) -> Any:
    if not answer.is_success:
        raise _refusal(answer)
    if not answer.content:
        return None
    try:
        return without_nulls(json.loads(answer.content))
    except (ValueError, RecursionError) as error:
        raise Unreachable(f"{answer.request.url} answered no JSON ({error}); is it a CAMARA API?", maybe_done=True) from None


def _refusal(answer: httpx.Response) -> Denied:
    try:
        said = Problem.model_validate(json.loads(answer.content))
        return Denied(answer.status_code, said.code, said.message)
    except (ValueError, ValidationError, RecursionError):
        return Denied(
            answer.status_code, "UNKNOWN", f"the network answered {answer.status_code} {answer.reason_phrase} and no reason"
        )


def _retry_after_s(answer: httpx.Response) -> float | None:
    said = answer.headers.get("Retry-After", "")
    return float(said) if said.isascii() and said.isdigit() else None


def without_nulls(found: Any) -> Any:
    """JSON without its nulls: some networks write them where the standard leaves things out."""
    if isinstance(found, dict):
        return {key: without_nulls(value) for key, value in found.items() if value is not None}
    return [without_nulls(value) for value in found] if isinstance(found, list) else found


def understood(form: TypeAdapter[_Form], found: Any, standard: str) -> _Form:
    """An answer as the form it should have. Raises Unreachable: it has not."""
    try:
        return form.validate_python(found)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise Unreachable(
            f"the network's answer is not what {standard} says ({where}: {first['msg']})", maybe_done=True
        ) from None
