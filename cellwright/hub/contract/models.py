"""Models, their publications, releases and uploads."""

from __future__ import annotations

import math
import re
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator

from cellwright.hub.contract.names import (
    Amount,
    Digest,
    FileName,
    Format,
    Hex,
    Line,
    ModelName,
    Positive,
    Seconds,
    ShortName,
    TenantName,
    VersionName,
    Visibility,
    Wire,
    _number,
)


class Figures(Wire):
    """What a model is good for; matching by requirement goes by it. None: not stated, and no requirement on it is met."""

    task: Line | None = None  # "traffic forecast"
    latency_ms: Positive | None = None
    error: Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)] | None = None  # in the model's own unit (`error_unit`)
    error_unit: Line | None = None


class ModelForm(Wire):
    """PUT /v1/models/{model}."""

    title: Line = ""
    description: Annotated[str, Field(max_length=4_000)] = ""
    visibility: Visibility = "private"
    figures: Figures = Figures()


class Terms(Wire):
    """How a version under trial is watched; as a rollout's parameters say (params.Rollout)."""

    sites: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=200)], ...], Field(max_length=1_000)] = ()  # its own
    shadow: Annotated[float, Field(strict=True, ge=0, le=1)] = (
        1.0  # share of requests that both versions compute, to compare their errors
    )
    latency_ms: Annotated[float, Field(strict=True, gt=0, le=3_600_000)] = 10.0  # an answer later than this counts as late
    since_s: Seconds | None = None  # what is counted is counted from this beginning on; None: from when an edge hears of it


class Publication(Wire):
    """Which version of a model is in use, and the shares of requests that versions under trial get."""

    version: VersionName
    weights: dict[VersionName, Annotated[float, Field(strict=True, ge=0, le=1)]] = Field(
        default_factory=dict, max_length=8
    )  # 0: held, computes
    canary: VersionName | None = None  # the version under trial, one of `weights`
    terms: Terms | None = None  # of the canary's trial; None: an edge's own

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        """Other versions' weights leave the rest to `version`; where it is named too, all add up to 1."""
        total = math.fsum(self.weights.values())
        if self.version in self.weights and not math.isclose(total, 1, abs_tol=1e-6):
            raise ValueError(f"weights must add up to 1, found {total:g}")
        if self.version not in self.weights and total >= 1:
            raise ValueError(f"weights of other versions must leave something to {self.version}, found {total:g}")
        if self.canary is not None and (self.canary == self.version or self.canary not in self.weights):
            raise ValueError("canary must be one of weights, and another version than the one in use")
        if self.terms is not None and self.canary is None:
            raise ValueError("terms are of a canary's trial; name the canary too")
        return self

    @property
    def shares(self) -> dict[str, float]:
        """Version -> share of the requests; they add up to 1."""
        rest = {} if self.version in self.weights else {self.version: 1 - math.fsum(self.weights.values())}
        return {**self.weights, **rest}


class Published(Publication):
    """A publication as it stands; `number` grows with each change. `If-Match: "<number>"` lets one of two publishers win."""

    model: ModelName
    number: Amount
    published_s: Seconds
    by: Line
    edges: tuple[ShortName, ...] = ()  # that shall hold it now


class Model(ModelForm):
    """A model as its tenant sees it, or as others see a shared one."""

    tenant: TenantName
    name: ModelName
    created_s: Seconds
    versions: tuple[VersionName, ...]
    publication: Published | None = None


class ReleaseFile(Wire):
    """A file of a release's OCI layout."""

    path: str
    bytes: Amount
    sha256: Hex
    media_type: str


class Release(Wire):
    """One immutable version of a model: a signed OCI image layout."""

    tenant: TenantName
    model: ModelName
    version: VersionName
    digest: Digest  # of the model manifest
    format: Line  # "forecast" (a forecasting bundle), "onnx", "safetensors", "opaque", or what a ModelPack says
    bytes: Amount  # of all files
    signed_by: Hex
    created_s: Seconds
    figures: Figures = Figures()
    files: tuple[ReleaseFile, ...]
    layers: dict[str, Digest]  # file name -> digest of its blob


class UploadForm(Wire):
    """POST /v1/uploads. With tus 1.0's headers instead: Upload-Length, and the other fields as Upload-Metadata."""

    model: ModelName
    version: VersionName
    format: Format
    bytes: Annotated[int, Field(ge=1, le=1 << 43), BeforeValidator(_number)]
    sha256: Hex | None = None  # of the whole file; compared when the last byte is there
    filename: FileName | None = None  # of the layer; None: after the format ("model.onnx")
    title: Line = ""
    description: Annotated[str, Field(max_length=4_000)] = ""
    figures: Figures = Figures()


class Upload(Wire):
    """An upload on its way."""

    id: str
    form: UploadForm
    offset: Amount
    created_s: Seconds
    expires_s: Seconds


def safe_path(path: str) -> bool:
    """Whether `path` can be one of a layout: "oci-layout", "index.json" or "blobs/sha256/<hex>"."""
    return re.fullmatch(r"oci-layout|index\.json|blobs/sha256/[0-9a-f]{64}", path) is not None
