"""Judges what clients send: JSON that is a form of the standard, and what the standard asks beyond its schema."""

from __future__ import annotations

import ipaddress
import json
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlsplit

from pydantic import ValidationError

from cellwright.qos.forms import FROM_OUTSIDE, Form
from cellwright.qos.simulator.options import Behaviour
from cellwright.qos.simulator.refusal import Refusal, invalid

MOST_BYTES = 256 * 1024
_Form = TypeVar("_Form", bound=Form)
_RANGE_ERRORS = frozenset({"greater_than_equal", "less_than_equal"})


def parsed(body: bytes, content_type: str) -> dict[str, Any]:
    """A JSON object. Raises Refusal."""
    if content_type != "application/json":
        raise invalid(f"The body must be application/json, found {content_type[:80] or 'nothing'}.")
    try:
        found = json.loads(body.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise invalid("The body is no JSON in UTF-8.") from None
    if not isinstance(found, dict):
        raise invalid("The body must be one JSON object.")
    return found


def formed(form: type[_Form], found: dict[str, Any]) -> _Form:
    """The object as a form. Raises Refusal: 400 INVALID_ARGUMENT, or OUT_OF_RANGE for a number outside its range."""
    try:
        return form.model_validate(found, context=FROM_OUTSIDE)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        message = f"{where}: {first['msg'].removeprefix('Value error, ')}"[:500]
        raise Refusal(400, "OUT_OF_RANGE" if first["type"] in _RANGE_ERRORS else "INVALID_ARGUMENT", message) from None


def check_sink(found: dict[str, Any], behaviour: Behaviour) -> None:
    """The sink and its credential, before the form: the standard has codes of its own for them. Raises Refusal."""
    sink, credential = found.get("sink"), found.get("sinkCredential")
    if isinstance(sink, str):
        _check_address(sink, behaviour)
    if isinstance(credential, dict):
        kind = credential.get("credentialType")
        if kind in ("PLAIN", "REFRESHTOKEN"):
            raise Refusal(400, "INVALID_CREDENTIAL", "Only Access token is supported")
        if kind == "ACCESSTOKEN" and "accessTokenType" in credential and credential["accessTokenType"] != "bearer":
            raise Refusal(400, "INVALID_TOKEN", "Only bearer token is supported")
        token = credential.get("accessToken")
        if isinstance(token, str) and not (token.isascii() and token.isprintable() and token and " " not in token):
            raise Refusal(400, "INVALID_TOKEN", "An access token is of visible ASCII characters")


def _check_address(sink: str, behaviour: Behaviour) -> None:
    try:
        url = urlsplit(sink)
        host, port = url.hostname, url.port
    except ValueError:
        host, port, url = None, 0, urlsplit("")
    if not host or port == 0 or not sink.isascii() or not sink.isprintable() or " " in sink:
        raise Refusal(400, "INVALID_SINK", "sink is no address")
    near = _on_loopback(host)
    if url.scheme != "https" and not (url.scheme == "http" and behaviour.plain_sinks and near):
        raise Refusal(400, "INVALID_SINK", "sink not valid for the specified protocol: it must start with https://")
    if not near and not behaviour.far_sinks:
        raise Refusal(
            400, "INVALID_SINK", "this network delivers to its own machine only; behaviour.far_sinks lets it deliver elsewhere"
        )


def _on_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
