"""Values of the CAMARA forms as JSON Schema means them: whole numbers, texts, moments, addresses."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, TypeVar
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, Field

MOST_SECONDS = 2**31 - 1  # durations are int32
_RFC3339 = re.compile(r"^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)\Z", re.ASCII)
_Network = TypeVar("_Network", ipaddress.IPv4Network, ipaddress.IPv6Network)


def whole(value: Any) -> int:
    """An integer as JSON Schema means it: 5 and 5.0 are, true and "5" are not."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
        raise ValueError(f"must be a whole number, found {value!r}"[:100])
    return int(value)


def text(value: Any) -> Any:
    """A string, and nothing that could be made one."""
    if isinstance(value, str | UUID | StrEnum):
        return value
    raise ValueError(f"must be a string, found {type(value).__name__}")


def instant(value: Any) -> datetime:
    """A moment in UTC from RFC 3339 with a time zone; never from a number."""
    if isinstance(value, datetime) and value.tzinfo:
        return value.astimezone(UTC)
    if not isinstance(value, str) or not _RFC3339.match(value):
        raise ValueError(f"must be a date and time of RFC 3339 with a time zone, found {value!r}"[:140])
    seen = re.sub(r"(\.\d{1,6})\d*", r"\1", value.upper().replace("Z", "+00:00"))
    if seen[17:19] == "60":  # a leap second; clocks here know none
        seen = f"{seen[:17]}59{seen[19:]}"
    try:
        return datetime.fromisoformat(seen).astimezone(UTC)
    except OverflowError:
        raise ValueError("is before the year 1 or after the year 9999 in UTC") from None


def _identifier(value: Any) -> Any:
    if isinstance(value, str) and not re.match(r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z", value):
        raise ValueError("must be a UUID in its hyphenated form")
    return text(value)


def _checked(parse: Callable[[str], object]) -> AfterValidator:
    """The text as it was given, once `parse` takes it."""

    def check(value: str) -> str:
        if "%" in value:
            raise ValueError("an address of a network has no zone")
        parse(value)
        return value

    return AfterValidator(check)


Text = Annotated[str, BeforeValidator(text)]
Identifier = Annotated[UUID, BeforeValidator(_identifier)]
Instant = Annotated[datetime, BeforeValidator(instant)]
Seconds = Annotated[int, BeforeValidator(whole), Field(ge=1, le=MOST_SECONDS)]
Port = Annotated[int, BeforeValidator(whole), Field(ge=0, le=65535)]
Ipv4 = Annotated[Text, _checked(ipaddress.IPv4Address)]
Ipv6 = Annotated[Text, _checked(ipaddress.IPv6Address)]
Ipv4Range = Annotated[Text, _checked(lambda value: ipaddress.IPv4Network(value, strict=False))]
Ipv6Range = Annotated[Text, _checked(lambda value: ipaddress.IPv6Network(value, strict=False))]
PhoneNumber = Annotated[Text, Field(pattern=r"^\+[1-9][0-9]{4,14}$")]
ProfileName = Annotated[Text, Field(min_length=3, max_length=256, pattern=r"^[a-zA-Z0-9_.-]+$")]
