"""The catalogue of data sets: what each is, where it comes from, under which licence, and how it is read.

It is `data/catalogue.yaml`; a data set of your own is a few lines in it, and has DVC stages by itself.
"""

from __future__ import annotations

import difflib
import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import available_timezones

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cellwright.errors import ParamsError, UnknownName
from cellwright.families import member

_READERS = "cellwright.data.readers"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Entry):
    """One upstream file. It is kept decompressed, so that a mirror and an address give the same bytes."""

    name: str = Field(description="file name below data/raw/<data set>/")
    sha256: Sha256 = Field(description="of the decompressed upstream bytes")
    mirror: str | None = Field(None, description="path in a mirror folder; `.gz` is decompressed")
    mirror_sha256: Sha256 | None = Field(None, description="of the mirror's file as it lies there")
    address: str | None = Field(None, description="http(s) address of the same file; none: there is no plain file to fetch")

    @property
    def mirror_path(self) -> str:
        """Where a mirror folder keeps it."""
        return self.mirror or self.name


class FeatureEntry(_Entry):
    """One measured quantity and the column it comes from."""

    unit: str = Field(description='"Mbit/s", "%", "1" for a share, "a.u." for arbitrary units')
    column: str | None = Field(None, description="its column, or value of the feature column; none: as the feature is called")
    low: float | None = Field(None, description="smallest possible value, in the unit")
    high: float | None = Field(None, description="largest possible value, in the unit")
    zero_is_outage: bool = Field(True, description="whether a run of zeros that is not usual there means that the site was down")


class Entry(_Entry):
    """One data set."""

    name: str
    title: str
    description: str = ""
    licence: str = "not stated"
    attribution: str = ""
    citation: str = ""
    homepage: str | None = Field(None, description="where people find it")
    note: str = ""
    reader: str
    options: dict[str, Any] = Field(default_factory=dict, description="the reader's own options")
    cadence_s: Annotated[float, Field(ge=0.001)]
    snap_s: Annotated[float, Field(ge=0)] = Field(
        0, description="time stamps this near to their interval's start are moved to it"
    )
    timezone: str = Field("UTC", description="of naive time stamps, and in which hours of the day are counted")
    clock: Literal["utc", "relative"] = "utc"
    features: dict[str, FeatureEntry] = Field(min_length=1)
    targets: tuple[str, ...] = Field(min_length=1)
    drop_sites: tuple[str, ...] = Field((), description="sites that are left out")
    sources: tuple[Source, ...] = Field((), description="upstream files with their hashes")
    files: str | None = Field(None, description="your own file, folder or glob, relative to the project; the last two may grow")
    generator: Literal["city"] | None = None
    generator_options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        origins = [bool(self.sources), self.files is not None, self.generator is not None]
        if sum(origins) != 1:
            raise ValueError("give exactly one of sources, files or generator")
        if self.timezone not in available_timezones():
            raise ValueError(f"timezone '{self.timezone}' is not one of the tz database; write it like Europe/Rome")
        if taken := {"time_ms", "site", "segment"} & set(self.features):
            raise ValueError(f"a feature cannot be called {', '.join(sorted(taken))}; name it otherwise and give its `column`")
        for target in self.targets:
            if target not in self.features:
                raise ValueError(str(UnknownName("feature", target, self.features, hint="targets must be features.")))
        if self.snap_s > self.cadence_s / 2:
            raise ValueError(f"snap_s must be at most half of cadence_s ({self.cadence_s / 2} s), found {self.snap_s}")
        return self

    @cached_property
    def reader_options(self) -> Any:
        """The options as the reader's own `Options`."""
        return member(_READERS, self.reader, what="reader").Options.model_validate(self.options)

    @property
    def grows(self) -> bool:
        """Whether more files may come: a folder or a glob."""
        return self.files is not None and (any(c in self.files for c in "*?[") or not Path(self.files).suffix)


@dataclass(frozen=True)
class Catalogue:
    """Every data set there is, by name."""

    path: Path
    entries: dict[str, Entry]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the data sets, in the order of the file."""
        return tuple(self.entries)

    def entry(self, name: str) -> Entry:
        """One data set.

        Raises:
            UnknownName: there is none of that name; the message lists those there are.
        """
        if name not in self.entries:
            raise UnknownName("data set", name, self.entries, hint=f"Describe your own in {self.path}.")
        return self.entries[name]

    @property
    def hash(self) -> str:
        """SHA-256 over all entries: changes when any of them does."""
        parts = (self.entries[n].model_dump_json() for n in sorted(self.entries))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def load_catalogue(path: Path) -> Catalogue:
    """Read the catalogue.

    Raises:
        ParamsError: unreadable file, unknown key (the nearest known one is named), an unknown reader.
    """
    return Catalogue(path, {str(name): _entry(path, str(name), content) for name, content in _mapping(path).items()})


class _Strict(yaml.SafeLoader):
    """YAML in which a name stands once: of two data sets of one name, neither is lost in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value]
        if twice := sorted({n for n in names if names.count(n) > 1}, key=str):
            raise yaml.constructor.ConstructorError(
                None, None, f"'{twice[0]}' stands there twice; names must differ", node.start_mark
            )
        return super().construct_mapping(node, deep)


def _mapping(file: Path) -> dict[str, Any]:
    try:
        content = _Strict(file.read_text()).get_single_data()
    except (OSError, yaml.YAMLError) as error:
        raise ParamsError(f"cannot read {file}: {error}") from error
    found = content.get("datasets") if isinstance(content, dict) else None
    if not isinstance(found, dict):
        raise ParamsError(f"{file} must hold data sets (name: description) under 'datasets:', found {type(found).__name__}")
    return found


def _entry(file: Path, name: str, content: Any) -> Entry:
    if not isinstance(content, dict):
        raise ParamsError(f"{file}, {name}: expected keys and values, found {content!r}")
    try:
        entry = Entry.model_validate({"name": name, **content})
        _ = entry.reader_options
    except UnknownName as error:
        raise ParamsError(f"{file}, {name}: {error}") from None
    except ValidationError as error:
        lines = [_explain(e, _owner(error.title, e["loc"], content)) for e in error.errors()]
        raise ParamsError(f"{file}, {name}: " + "; ".join(lines)) from None
    return entry


def _owner(title: str, loc: tuple[Any, ...], content: dict[str, Any]) -> type[BaseModel]:
    """The model that an error's key belongs to."""
    if title != Entry.__name__:
        options: type[BaseModel] = member(_READERS, content["reader"], what="reader").Options
        return options
    inner: dict[str, type[BaseModel]] = {"features": FeatureEntry, "sources": Source}
    return inner.get(str(loc[0]), Entry) if len(loc) > 1 else Entry


def _explain(error: Any, owner: type[BaseModel]) -> str:
    where = ".".join(str(p) for p in error["loc"]) or "entry"
    if error["type"] == "missing":
        return f"{where} is missing"
    if error["type"] != "extra_forbidden":
        return f"{where}: {error['msg'].removeprefix('Value error, ')}"
    known = sorted(owner.model_fields)
    near = difflib.get_close_matches(str(error["loc"][-1]), known, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else f"; known here: {', '.join(known)}"
    return f"{where}: unknown key{hint}"
