"""What names, amounts and times may be; what all documents have in common, and how those of a newer hub are read."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, model_validator

OPERATOR = "operator"
MOST_REPORTS = 1_000  # in one POST /v1/fetches
LONGEST_WAIT_S = 60.0  # of a long poll
_VERSION = r"^\d{1,9}\.\d{1,9}\.\d{1,9}(?:-[0-9A-Za-z.-]{1,64})?(?:\+[0-9A-Za-z.-]{1,64})?$"  # as cellwright/bundle/manifest.py


def _number(value: Any) -> Any:
    """Neither true, which Python counts as 1, nor a text of digits; 3.0 is an integer, as in JSON Schema."""
    if isinstance(value, bool | str):
        raise ValueError("must be a number")  # noqa: TRY004 - pydantic takes no TypeError
    return value


def _place(text: str) -> str:
    """No dot alone, so that no name climbs out of a folder or an address."""
    if text.strip(".") == "":
        raise ValueError("must not consist of dots")
    return text


TenantName = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,40}$")]
ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+-]{0,199}$"), AfterValidator(_place)]
VersionName = Annotated[str, Field(pattern=_VERSION)]
ShortName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$")]  # of an area, an edge, a rule, a device
FileName = ModelName
Line = Annotated[str, Field(max_length=500)]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# No number is taken for true, no text for a number: what is sent must be what the OpenAPI says. Integers are those that every JSON
# reader knows exactly.
Flag = Annotated[bool, Field(strict=True)]
Amount = Annotated[int, Field(ge=0, le=(1 << 53) - 1), BeforeValidator(_number)]
Seconds = Annotated[float, Field(strict=True, ge=0, le=1e11, allow_inf_nan=False)]
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
Scope = Literal[
    "operator",
    "models:read",
    "models:write",
    "placement:write",
    "audit:read",
    "metrics:read",
    "edge",
    "device",
    "publish",
    "truth",
]
Format = Literal["onnx", "safetensors", "modelpack", "opaque"]
Visibility = Literal["private", "shared"]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
GrantId = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
PROTOCOL = 1  # the newest that is known here, of documents that hubs tell
_Kind = TypeVar("_Kind")


class Wire(BaseModel):
    """Frozen; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Told(Wire):
    """What a hub tells edges and devices, which may be older than it is. It writes the lowest `protocol` that says all: only a document
    with a key that nobody may ignore has a higher one."""

    protocol: Annotated[int, Field(ge=1), BeforeValidator(_number)] = PROTOCOL

    @model_validator(mode="before")
    @classmethod
    def _is_known(cls, said: Any) -> Any:
        """Before all else, which may be of other forms in a newer one."""
        found = said.get("protocol", PROTOCOL) if isinstance(said, dict) else PROTOCOL
        if isinstance(found, int) and found > PROTOCOL:
            raise ValueError(
                f"the hub speaks protocol {found}, known here is {PROTOCOL}; the hub is newer: update Cellwright here"
            )
        return said


def told(kind: type[_Kind], content: bytes) -> _Kind:
    """What a hub answered, perhaps a newer one: keys that are not known here are ignored. Raises ValidationError."""
    return TypeAdapter(kind).validate_json(content, extra="ignore")
