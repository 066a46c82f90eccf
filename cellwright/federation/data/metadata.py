"""The metadata of raw data (M.3387 10.1): generated where the data lie, versioned, updated as they grow, exchanged and kept sealed.

What leaves the owner, always: names and units of features, targets, cadence, clock, span, number of rows and sites, share of
missing values. Only if the owner's `Disclosure` says so: the sites' names, and each feature's quantiles, exact or noisy. Noisy ones are
drawn by the exponential mechanism (Smith 2011), ε-differentially private for one measured value (one site, one interval), within
bounds that must be known without looking at the data. Every new version of noisy quantiles spends ε again. The data never leave.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from cellwright.errors import FederationError, Refused
from cellwright.federation.contract import Parcel, Spec
from cellwright.panel import Feature, Flag, Panel

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)  # of the quantiles
_LONGEST_TEXT = 2**20
_HASH = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Disclosure(Spec):
    """What an owner tells beyond the form of its data."""

    quantiles: Literal["withheld", "noisy", "exact"] = "withheld"
    epsilon: Annotated[float, Field(gt=0)] = 1.0  # of noisy quantiles, a version and measured value
    bounds: dict[str, tuple[float, float]] = Field(default_factory=dict)  # by feature; else the feature's own low and high
    site_names: bool = False


class FeatureMetadata(Spec):
    """One feature, as far as it is told."""

    name: Annotated[str, Field(max_length=200)]
    unit: Annotated[str, Field(max_length=40)]
    low: float | None = None  # physical bounds, in the unit
    high: float | None = None
    missing_share: Annotated[float, Field(ge=0, le=1)]
    quantiles: tuple[float, float, float, float, float] | None = None  # at LEVELS, in the unit; None: not told
    withheld: str = ""  # why they are not


class Metadata(Spec):
    """What an owner tells of its raw data. `version` is the hash of all the rest."""

    version: _HASH
    previous: Annotated[str, Field(max_length=64)] = ""  # version that this one replaces
    owner: Annotated[str, Field(max_length=64)]
    dataset: Annotated[str, Field(max_length=200)]
    features: Annotated[tuple[FeatureMetadata, ...], Field(max_length=10_000)]
    targets: tuple[str, ...]
    cadence_s: Annotated[float, Field(gt=0)]
    clock: Literal["utc", "relative"]
    rows: Annotated[int, Field(ge=0)]
    sites: Annotated[int, Field(ge=0)]
    site_names: tuple[str, ...] | None = None
    first: str  # ISO 8601, or "row 0"
    last: str
    disclosure: Literal["withheld", "noisy", "exact"]
    epsilon: float | None = None  # spent on this version

    def feature(self, name: str) -> FeatureMetadata:
        """One feature.

        Raises:
            Refused: it has none of that name.
        """
        for feature in self.features:
            if feature.name == name:
                return feature
        raise Refused(f"owner '{self.owner}' has no feature '{name}'; it has {', '.join(f.name for f in self.features)}")


def describe(
    panel: Panel, owner: str, disclosure: Disclosure, *, previous: str = "", rng: np.random.Generator | None = None
) -> Metadata:
    """The metadata of an owner's panel. `rng`: of the noise, by default the system's randomness; a seed of one's own is for tests.

    Raises:
        FederationError: the panel holds no rows or no sites.
    """
    schema = panel.schema
    if not schema.rows or not schema.sites:
        raise FederationError(f"owner '{owner}' has no data to describe: {schema.rows} rows of {len(schema.sites)} sites")
    source = rng or np.random.default_rng(secrets.randbits(256))
    times = panel.times_ms()
    first, last = (_moment(int(times[row]), row % schema.rows, schema.clock) for row in (0, -1))
    told = Metadata(
        version="0" * 64,
        previous=previous,
        owner=owner,
        dataset=schema.dataset,
        features=tuple(_feature(panel, f, disclosure, source) for f in schema.features),
        targets=schema.targets,
        cadence_s=schema.cadence_s,
        clock=schema.clock,
        rows=schema.rows,
        sites=len(schema.sites),
        site_names=schema.sites if disclosure.site_names else None,
        first=first,
        last=last,
        disclosure=disclosure.quantiles,
        epsilon=disclosure.epsilon if disclosure.quantiles == "noisy" else None,
    )
    return told.model_copy(update={"version": content_hash(told)})


def content_hash(metadata: Metadata) -> str:
    """SHA-256 over all but the version."""
    return hashlib.sha256(metadata.model_dump_json(exclude={"version"}).encode()).hexdigest()


def fingerprint(panel: Panel) -> str:
    """SHA-256 of the data themselves: whether they have changed. It stays at the owner: who guesses the data could confirm it."""
    total = hashlib.sha256(panel.schema.model_dump_json().encode())
    for feature in panel.schema.features:
        total.update(np.ascontiguousarray(panel.values(feature.name)).data)
        total.update(np.ascontiguousarray(panel.flags(feature.name)).data)
    return total.hexdigest()


def parcel_of(metadata: Metadata) -> Parcel:
    """Metadata as a message of kind "metadata"."""
    return Parcel(values={"metadata": metadata.model_dump_json()})


def metadata_of(parcel: Parcel, *, sender: str | None = None) -> Metadata:
    """The metadata that a message brings; `sender`: whose they must be.

    Raises:
        Refused: of another form, not what its version says, or of another owner.
    """
    text = parcel.values.get("metadata")
    if not isinstance(text, str) or len(text) > _LONGEST_TEXT:
        raise Refused(f"a message of kind 'metadata' must hold them as a text of at most {_LONGEST_TEXT} characters")
    try:
        found = Metadata.model_validate_json(text)
    except ValueError as error:
        raise Refused(f"the metadata cannot be read ({error}); both sides must run the same version") from None
    if content_hash(found) != found.version:
        raise Refused(f"the metadata of '{found.owner}' are not what their version says; they were altered")
    if sender is not None and found.owner != sender:
        raise Refused(f"'{sender}' sent metadata of '{found.owner}'; an owner describes only its own data")
    return found


def _feature(panel: Panel, feature: Feature, disclosure: Disclosure, rng: np.random.Generator) -> FeatureMetadata:
    good = panel.good(feature.name)
    missing = (panel.flags(feature.name) & int(Flag.MISSING)) != 0
    quantiles, withheld = _quantiles(panel.values(feature.name)[good], feature, disclosure, rng)
    return FeatureMetadata(
        **feature.model_dump(), missing_share=round(float(missing.mean()), 6), quantiles=quantiles, withheld=withheld
    )


def _quantiles(
    values: np.ndarray, feature: Feature, disclosure: Disclosure, rng: np.random.Generator
) -> tuple[tuple[float, float, float, float, float] | None, str]:
    """The quantiles as they may be told, or why they are not."""
    if disclosure.quantiles == "withheld":
        return None, "the owner withholds them"
    if disclosure.quantiles == "exact":
        return (_five(np.quantile(values, LEVELS)), "") if len(values) else (None, "nothing was measured")
    low, high = bounds_of(feature, disclosure.bounds)
    if low is None or high is None:
        return None, "noise needs bounds that are known beforehand; give them as disclosure.bounds"
    inside = np.sort(np.clip(values.astype(np.float64), low, high))
    each = disclosure.epsilon / len(LEVELS)
    return _five(np.sort([_noisy_quantile(inside, level, low, high, each, rng) for level in LEVELS])), ""


def bounds_of(feature: Feature, given: Mapping[str, tuple[float, float]]) -> tuple[float | None, float | None]:
    """Bounds of a feature: those given, else its own."""
    return given.get(feature.name, (feature.low, feature.high))


def _noisy_quantile(
    ascending: np.ndarray, level: float, low: float, high: float, epsilon: float, rng: np.random.Generator
) -> float:
    """One quantile by the exponential mechanism: an interval between neighbours, the likelier the nearer its rank; then a point in it.

    Replacing one value moves a rank by at most one, so a weight of width · exp(−ε |rank − level · n| / 2) is ε-differentially private.
    The largest of log-weights plus Gumbel noise is such a draw.
    """
    edges = np.concatenate(([low], ascending, [high]))
    widths = np.diff(edges)
    with np.errstate(divide="ignore"):  # intervals without width are never drawn
        weights = np.log(widths) - epsilon * np.abs(np.arange(len(widths)) - level * len(ascending)) / 2
    chosen = int(np.argmax(weights + rng.gumbel(size=len(weights)))) if high > low else 0
    return float(edges[chosen] + rng.random() * widths[chosen])


def _five(values: np.ndarray) -> tuple[float, float, float, float, float]:
    a, b, c, d, e = (float(np.float32(v)) for v in values)
    return a, b, c, d, e


def _moment(time_ms: int, row: int, clock: str) -> str:
    return f"row {row}" if clock == "relative" else datetime.fromtimestamp(time_ms / 1000, UTC).isoformat()
