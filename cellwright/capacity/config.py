"""Section `plan_edge` of a YAML file: the area, its devices, the models they fetch, and what serves them.

The defaults are the use case of 3GPP TR 22.874, clause 6.2: 10,000 devices per km², each fetching 536 MB (512 MiB) at once, in 1 s.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import AfterValidator, BaseModel, Field, ValidationError, model_validator

from cellwright.capacity.area import area_of
from cellwright.errors import ParamsError
from cellwright.sections import Count, Section, Share

Lever = Literal["device_cache", "delta", "staggering", "multicast", "quantisation"]
LEVERS: tuple[Lever, ...] = get_args(Lever)
SMALLEST = 1e-9  # of anything that is positive: below, numbers lose their precision


def _enough(value: float) -> float:
    if value < SMALLEST:
        raise ValueError(f"must be at least {SMALLEST:g}, found {value:g}")
    return value


_Enough = AfterValidator(_enough)
Positive = Annotated[float, Field(gt=0, le=1e18, allow_inf_nan=False), _Enough]
NonNegative = Annotated[float, Field(ge=0, le=1e18, allow_inf_nan=False)]
Size = Annotated[float, Field(gt=0, le=1e15, allow_inf_nan=False), _Enough]
Duration = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False), _Enough]
Area = Annotated[float, Field(gt=0, le=5.101e8, allow_inf_nan=False), _Enough]  # at most the Earth's surface
MAX_MODELS = 100_000
_KINDS = {"catalogue.size": "fixed, listed or log_uniform", "arrivals": "at_once, poisson, diurnal or burst"}
MAX_FILE_BYTES = 16 * 1024**2


class Fixed(Section):
    """Every model has the same size."""

    kind: Literal["fixed"] = "fixed"
    size_bytes: Size = Field(536_870_912, description="size of every model")


class SizeShare(Section):
    """One size of a list."""

    size_bytes: Size = Field(description="size of these models")
    share: Annotated[float, Field(gt=0, le=1)] = Field(description="share of the models that have it")


class Listed(Section):
    """A few sizes, each with its share of the models."""

    kind: Literal["listed"] = "listed"
    sizes: Annotated[tuple[SizeShare, ...], Field(min_length=1)] = Field(description="sizes and their shares, which add up to 1")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        total = sum(size.share for size in self.sizes)
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the shares must add up to 1, found {total:g}")
        return self


class LogUniform(Section):
    """Sizes spread evenly on a logarithmic scale."""

    kind: Literal["log_uniform"] = "log_uniform"
    low_bytes: Size = Field(3_200_000, description="smallest model")
    high_bytes: Size = Field(536_870_912, description="largest model")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low_bytes > self.high_bytes:
            raise ValueError(f"low_bytes must not exceed high_bytes, found {self.low_bytes:g} and {self.high_bytes:g}")
        return self


class Catalogue(Section):
    """The models that devices ask for."""

    models: Annotated[int, Field(ge=1, le=MAX_MODELS)] = Field(2, description="models that differ (TR 22.874: model A and B)")
    zipf: NonNegative = Field(0.0, description="exponent of their popularity by rank; 0: all equally popular")
    size: Fixed | Listed | LogUniform = Field(Fixed(), discriminator="kind", description="how large they are")


class AtOnce(Section):
    """Every device asks at the same moment."""

    kind: Literal["at_once"] = "at_once"


class Poisson(Section):
    """Requests arrive independently of each other at a steady rate."""

    kind: Literal["poisson"] = "poisson"
    duration_s: Duration = Field(60.0, description="how long requests arrive")
    rate_per_km2_s: Positive | None = Field(None, description="requests per km² and second; null: each device asks once")


class Diurnal(Section):
    """A day with a busy hour; the rate follows a cosine."""

    kind: Literal["diurnal"] = "diurnal"
    peak_h: Annotated[float, Field(ge=0, lt=24)] = Field(18.0, description="busiest hour of the day")
    amplitude: Share = Field(0.8, description="swing of the rate around its mean; 1: the quietest hour is silent")
    fetches_per_device: Positive = Field(1.0, description="fetches of one device a day")


class Burst(Section):
    """A crowd moves in (a train, a gate that opens): most ask around one moment, the others evenly over the time."""

    kind: Literal["burst"] = "burst"
    at_s: NonNegative = Field(30.0, description="when the crowd is densest")
    width_s: Duration = Field(5.0, description="standard deviation of the crowd's arrival times")
    share: Share = Field(0.8, description="share of the devices that belong to the crowd")
    duration_s: Duration = Field(60.0, description="length of the time looked at")

    @model_validator(mode="after")
    def _inside(self) -> Self:
        if self.at_s > self.duration_s:
            raise ValueError(f"at_s must lie within duration_s ({self.duration_s:g} s), found {self.at_s:g}")
        return self


class Levers(Section):
    """What can bring the requirement down. `use` names those of the plan; the table of levers tries every one."""

    use: tuple[Lever, ...] = Field((), description="levers that the plan counts on; empty: none")
    device_cache_share: Share = Field(0.5, description="device_cache: share of fetches whose model the device holds already")
    delta_share: Share = Field(0.5, description="delta: share of the other fetches where the device holds an earlier version")
    delta_ratio: Annotated[float, Field(gt=0, le=1)] = Field(0.3, description="delta: its size relative to the whole file")
    stagger_window_s: Duration = Field(60.0, description="staggering: each fetch is put off by a random time up to this")
    multicast_share: Share = Field(0.8, description="multicast: share of devices that can join a broadcast")
    multicast_models: Count = Field(2, description="multicast: how many of the most popular models are broadcast")
    multicast_bit_s: Positive | None = Field(
        None, description="multicast: rate of a cell's broadcast; null: one pass over its models takes the deadline"
    )
    multicast_repeats: Count | None = Field(None, description="multicast: passes; null: as long as devices arrive")
    quantisation_ratio: Annotated[float, Field(gt=0, le=1)] = Field(
        0.25, description="quantisation: size relative to the whole model; 0.25: 8 bits for 32"
    )


class Network(Section):
    """Links, cells and edge servers."""

    device_bit_s: Positive = Field(5e9, description="most that one device's link carries")
    cell_bit_s: Positive | None = Field(None, description="what the devices of one cell share; null: the radio does not limit")
    cell_km2: Positive = Field(0.05, description="area of one cell")
    edge_bit_s: Positive = Field(100e9, description="what one edge server sends at most")
    edge_disk_bytes: Positive = Field(1e12, description="what one edge server can hold")
    origin_bit_s: Positive = Field(10e9, description="what one edge receives from the operator cloud at most")
    edges: Count | None = Field(None, description="edge servers; null: as many as the plan finds necessary")
    hit_rate: Annotated[float, Field(gt=0, le=1)] = Field(0.99, description="share of requests that the edges' caches shall meet")


class PlanEdge(Section):
    """One question: can these servers hand these models to these devices in time, and what would it take?"""

    area_km2: Area = Field(1.0, description="area that is planned for")
    area_file: Path | None = Field(None, description="GeoJSON polygon whose area replaces area_km2")
    devices_per_km2: Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False), _Enough] = Field(
        10_000.0, description="density of the devices (3GPP: 5,000 to 10,000)"
    )
    deadline_s: Duration = Field(1.0, description="time from a device's request to its last byte")
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = Field(
        0.999, description="probability with which the peak rate is not exceeded in the whole time"
    )
    catalogue: Catalogue = Catalogue()
    arrivals: AtOnce | Poisson | Diurnal | Burst = Field(AtOnce(), discriminator="kind", description="when devices ask")
    levers: Levers = Levers()
    network: Network = Network()


def read(path: Path | None, over: Mapping[str, Any] | None = None) -> PlanEdge:
    """The section `plan_edge` of a YAML file (None: the defaults), with `over` (dotted key -> value) laid over it.

    A relative `area_file` of the file is looked for beside it; the area it holds takes the place of `area_km2`.

    Raises:
        ParamsError: the file cannot be read, a key is unknown or a value out of range, or the polygon is not one.
    """
    raw = _section(path) if path else {}
    if path and isinstance(given := raw.get("area_file"), str):
        raw = raw | {"area_file": str(path.parent / given)}
    for key, value in (over or {}).items():
        raw = _with(raw, key.split("."), value)
    config = _checked(raw, str(path or "plan_edge"))
    return config if config.area_file is None else config.model_copy(update={"area_km2": area_of(config.area_file)})


def _section(path: Path) -> dict[str, Any]:
    try:
        if (size := path.stat().st_size) > MAX_FILE_BYTES:
            raise ParamsError(f"{path} has {size:,} bytes, at most {MAX_FILE_BYTES:,} are read; is it the right file?")
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ParamsError(f"cannot read {path}: {error}") from error
    section = content.get("plan_edge") if isinstance(content, dict) else None
    if not isinstance(section, dict):
        raise ParamsError(f"{path} must hold a section `plan_edge:` with keys in it; docs/capacity.md shows one")
    return section


def _with(tree: dict[str, Any], path: list[str], value: Any) -> dict[str, Any]:
    head, *rest = path
    if not rest:
        return tree | {head: value}
    below = tree.get(head)
    return tree | {head: _with(below if isinstance(below, dict) else {}, rest, value)}


def _checked(raw: Mapping[str, Any], where: str) -> PlanEdge:
    try:
        return PlanEdge.model_validate(raw)
    except ValidationError as error:
        raise ParamsError(f"{where}: " + "; ".join(_explained(e) for e in error.errors())) from None


def _explained(error: Any) -> str:
    place, found = ".".join(map(str, error["loc"])) or "plan_edge", f", found {error['input']!r}"
    if error["type"] in {"union_tag_not_found", "union_tag_invalid"}:
        given = error["input"].get("kind") if isinstance(error["input"], dict) else None
        found = "" if given is None else f", found {given!r}"
        return f"{place}: say which `kind` it is: {_KINDS[place]}{found}"
    if error["type"] == "value_error":
        return f"{place}: {error['ctx']['error']}"
    if error["type"] != "extra_forbidden":
        return f"{place}: {error['msg']}{found}"
    near = difflib.get_close_matches(str(error["loc"][-1]), _keys(PlanEdge), n=1)
    return f"{place}: unknown key{f'; did you mean {near[0]!r}?' if near else ''}"


def _keys(model: type[BaseModel]) -> set[str]:
    """Every key that stands anywhere in the section."""
    found = set(model.model_fields)
    for field in model.model_fields.values():
        for part in (field.annotation, *get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                found |= _keys(part)
    return found
