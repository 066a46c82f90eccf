"""Horizontal alignment (M.3387 10.4): owners of different sites, one feature space. Done by the coordinator on metadata alone.

Names are matched after the owners' synonyms, without regard to case and to `-`, `.`, `_` and blanks; units are converted where they
measure the same; a finer cadence that divides the unified one is aggregated. Whoever still does not fit is left out, with the reason.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from cellwright.errors import FederationError, Refused
from cellwright.federation.contract import Spec
from cellwright.federation.data.metadata import FeatureMetadata, Metadata
from cellwright.federation.data.normalise import Column, Plan, Standard
from cellwright.federation.data.units import conversion
from cellwright.federation.management.records import DataNeeds
from cellwright.panel import Feature

Synonyms = Mapping[str, str]  # an owner's name of a feature -> the unified one


class OwnerAlignment(Spec):
    """How one owner's features relate to the unified form."""

    owner: str
    fits: bool
    reasons: tuple[str, ...] = ()  # why it does not
    columns: tuple[Column, ...] = ()
    every: int = 1  # of its intervals that make one unified interval
    renamed: tuple[str, ...] = ()  # "DL-Traffic -> dl_traffic"
    converted: tuple[str, ...] = ()  # "dl_traffic: kbit/s -> Mbit/s"
    unused: tuple[str, ...] = ()  # features it has beyond the form


class AlignmentReport(Spec):
    """Who fits, how, and who does not."""

    standard: Standard
    owners: tuple[OwnerAlignment, ...]  # sorted by name
    partly: dict[str, tuple[str, ...]]  # features left out of the form -> owners that lack them

    @property
    def fit(self) -> tuple[str, ...]:
        """Owners whose data can be used."""
        return tuple(o.owner for o in self.owners if o.fits)

    def plan(self, owner: str) -> Plan:
        """How an owner's telemetry becomes the unified form.

        Raises:
            Refused: it does not fit, or was not aligned; says every reason.
        """
        for one in self.owners:
            if one.owner == owner and one.fits:
                return Plan(owner=owner, standard=self.standard, columns=one.columns, every=one.every)
            if one.owner == owner:
                raise Refused(
                    f"owner '{owner}' cannot take part: {'; '.join(one.reasons)}. Expected {_words(self.standard)}; give synonyms for "
                    "names that differ, bring the data into that form, or leave the owner out"
                )
        raise Refused(f"owner '{owner}' was not aligned; there are {', '.join(o.owner for o in self.owners)}")


def align(
    offers: Mapping[str, Metadata],
    *,
    needs: DataNeeds | None = None,
    standard: Standard | None = None,
    synonyms: Mapping[str, Synonyms] | None = None,
) -> AlignmentReport:
    """Align owners' features.

    Args:
        offers: what each owner tells of its data.
        needs: what the request asks for; empty: what the owners have in common.
        standard: the unified form, where it is fixed already; by default found among the owners.
        synonyms: by owner, its names of features -> the unified ones.

    Raises:
        Refused: there are no owners, or they have no target in common.
    """
    if not offers:
        raise Refused("no owner offers data; register owners and ask for their metadata first")
    names = {owner: _canonical_names(m, (synonyms or {}).get(owner, {})) for owner, m in offers.items()}
    form = standard or _common(offers, names, needs or DataNeeds(dataset=""))
    least = needs.least_windows if needs else 1
    aligned = tuple(_aligned(owner, offers[owner], names[owner], form, least) for owner in sorted(offers))
    return AlignmentReport(standard=form, owners=aligned, partly=_partly(names, form))


def require(metadata: Metadata, standard: Standard, synonyms: Synonyms | None = None) -> Plan:
    """How one owner's data become a form that is fixed.

    Raises:
        Refused: it has other features or another cadence.
    """
    given = {metadata.owner: synonyms or {}}
    return align({metadata.owner: metadata}, standard=standard, synonyms=given).plan(metadata.owner)


def _canonical_names(metadata: Metadata, synonyms: Synonyms) -> dict[str, list[FeatureMetadata]]:
    """Canonical name -> the owner's features of that name; more than one is a fault that `_aligned` tells."""
    found: dict[str, list[FeatureMetadata]] = {}
    for feature in metadata.features:
        found.setdefault(_canonical(synonyms.get(feature.name, feature.name)), []).append(feature)
    return found


def _canonical(name: str) -> str:
    return re.sub(r"[\s._-]+", "_", name.strip()).lower()


def _common(offers: Mapping[str, Metadata], names: Mapping[str, dict[str, list[FeatureMetadata]]], needs: DataNeeds) -> Standard:
    """The form that most owners can take part in."""
    targets = [_canonical(t) for t in needs.targets] or _usual_targets(offers, names)
    able = [owner for owner in sorted(offers) if all(t in names[owner] for t in targets)]
    if not targets or not able:
        raise Refused(
            f"no owner has {'the targets ' + ', '.join(needs.targets) if needs.targets else 'a target'}; the owners have "
            f"{', '.join(sorted({name for have in names.values() for name in have}))}"
        )
    asked = [_canonical(f) for f in needs.features]
    shared = sorted(set.intersection(*(set(names[owner]) for owner in able))) if not needs.features else asked
    chosen = [*targets, *(name for name in shared if name not in targets)]
    features = tuple(_feature(name, [names[owner][name][0] for owner in able if name in names[owner]]) for name in chosen)
    cadence_s = needs.cadence_s or _usual([offers[owner].cadence_s for owner in able])
    clock = _usual([offers[owner].clock for owner in able])
    return Standard(features=features, targets=tuple(f.name for f in features[: len(targets)]), cadence_s=cadence_s, clock=clock)


def _usual_targets(offers: Mapping[str, Metadata], names: Mapping[str, dict[str, list[FeatureMetadata]]]) -> list[str]:
    """The targets that most owners name together."""
    told = [
        tuple(name for target in m.targets for name, have in names[owner].items() if target in {f.name for f in have})
        for owner, m in sorted(offers.items())
    ]
    return list(_usual(told))


def _feature(name: str, found: list[FeatureMetadata]) -> Feature:
    """The feature as most owners have it; bounds only where all that have its unit agree."""
    if not found:
        raise Refused(f"no owner that has the targets has the feature '{name}' that is asked for")
    unit = _usual([f.unit for f in found])
    spelled = _usual([f.name for f in found if _canonical(f.name) == name] or [name])
    bounds = {(f.low, f.high) for f in found if f.unit == unit}
    low, high = bounds.pop() if len(bounds) == 1 else (None, None)
    return Feature(name=spelled, unit=unit, low=low, high=high)


def _usual(values: Sequence[Any]) -> Any:
    """The most frequent; of equally frequent ones the largest, so that the result does not depend on the owners' order."""
    counted = Counter(values)
    return max(counted, key=lambda value: (counted[value], value))


def _aligned(owner: str, offer: Metadata, names: dict[str, list[FeatureMetadata]], form: Standard, least: int) -> OwnerAlignment:
    reasons: list[str] = []
    columns = [c for f in form.features if (c := _column(f, names.get(_canonical(f.name), []), reasons)) is not None]
    every = _every(offer, form, reasons)
    if every and offer.rows // every < least:
        reasons.append(f"it has {offer.rows // every} intervals of {form.cadence_s:g} s, {least} are needed")
    used = {c.source for c in columns}
    return OwnerAlignment(
        owner=owner,
        fits=not reasons,
        reasons=tuple(reasons),
        columns=tuple(columns),
        every=every or 1,
        renamed=tuple(f"{c.source} -> {c.feature}" for c in columns if c.source != c.feature),
        converted=tuple(f"{c.feature}: {c.source_unit} -> {c.unit}" for c in columns if c.source_unit != c.unit),
        unused=tuple(f.name for f in offer.features if f.name not in used),
    )


def _column(feature: Feature, found: list[FeatureMetadata], reasons: list[str]) -> Column | None:
    """How the unified feature is made of the owner's; None: it cannot be, and `reasons` says why."""
    if len(found) != 1:
        several = f"several features are '{feature.name}': {', '.join(f.name for f in found)}"
        reasons.append(several if found else f"it has no feature '{feature.name}'")
        return None
    try:
        change = conversion(source=found[0].unit, target=feature.unit)
    except FederationError as error:
        reasons.append(f"'{found[0].name}': {error}")
        return None
    return Column(
        feature=feature.name,
        unit=feature.unit,
        source=found[0].name,
        source_unit=found[0].unit,
        factor=change.factor,
        offset=change.offset,
    )


def _every(offer: Metadata, form: Standard, reasons: list[str]) -> int:
    """How many of the owner's intervals make one of the form; 0: none do."""
    if offer.clock != form.clock:
        reasons.append(f"its clock is {offer.clock}, expected {form.clock}")
    every = round(form.cadence_s / offer.cadence_s)
    if every >= 1 and math.isclose(every * offer.cadence_s, form.cadence_s, rel_tol=1e-9):
        return every
    why = "is coarser than" if offer.cadence_s > form.cadence_s else "does not divide"
    reasons.append(f"its cadence of {offer.cadence_s:g} s {why} the {form.cadence_s:g} s of the form")
    return 0


def _partly(names: Mapping[str, dict[str, list[FeatureMetadata]]], form: Standard) -> dict[str, tuple[str, ...]]:
    """Features that some owners have and the form has not -> the owners that lack them."""
    inside = {_canonical(f.name) for f in form.features}
    others = sorted({name for have in names.values() for name in have} - inside)
    return {name: tuple(sorted(owner for owner, have in names.items() if name not in have)) for name in others}


def _words(form: Standard) -> str:
    features = ", ".join(f"{f.name} [{f.unit}]" for f in form.features)
    return f"{features} every {form.cadence_s:g} s"
