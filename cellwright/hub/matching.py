"""Which model a device needs, here and now, and why.

By service: the tenant's own rules first, then those of the owners of shared models; of those that fit service, user class, place and
hour, the highest priority wins, then the one that says most, then the name. By requirement: of the published models that fit the
task and every bound, the smallest error wins, then the lowest latency, then the fewest bytes; a figure that is not stated meets no bound.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from cellwright.hub import tables
from cellwright.hub.contract import (
    DAYS,
    Considered,
    Edge,
    Figures,
    GrantAnswer,
    GrantAsk,
    Hours,
    Location,
    MatchAnswer,
    MatchAsk,
    ModelForm,
    NearEdge,
    PlacementRule,
    Publication,
    Release,
    Requirements,
)
from cellwright.hub.core import Core, Who
from cellwright.hub.desired import Areas, all_areas, area_named, edge_of, holders
from cellwright.hub.geometry import covers, distance_m
from cellwright.hub.grant import issue
from cellwright.hub.models import publication_of, release_of
from cellwright.hub.places import Edges
from cellwright.hub.refusals import NotAllowed, NotFound
from cellwright.hub.tenants import Tenants

_MOST_TOLD = 50
_MOST_EDGES = 16


@dataclass(frozen=True)
class _Candidate:
    """A published model, by a rule or (by requirement only) by itself."""

    tenant: str
    model: str
    figures: Figures
    rule: PlacementRule | None


class Matching(Edges, Tenants, Core):
    """Answers devices."""

    def match(self, who: Who, ask: MatchAsk) -> MatchAnswer:
        """The best release for a device of the asking tenant, the edges that shall hold it, and a grant.

        Raises:
            NotFound: no model fits; the message says why each did not.
        """
        time_s = self.clock() if ask.time_s is None else ask.time_s
        with self.store.read() as connection:
            areas = all_areas(connection)
            fits: list[tuple[_Candidate, Release]] = []
            told: list[Considered] = []
            for candidate in _candidates(connection, who.tenant, ask.requirements is not None):
                release, reason = self._tried(connection, candidate, ask, areas, time_s)
                if reason or release is None:
                    told.append(_told(candidate, None, reason, who.tenant))
                else:
                    fits.append((candidate, release))
            if not fits:
                raise NotFound(_nothing(told))
            fits.sort(key=lambda fit: _order(fit, ask.requirements, who.tenant))
            (best, release), others = fits[0], fits[1:]
            near = self._near(connection, best, release, ask.location)
        told += [_told(c, r, f"fits too; {_why_first(ask.requirements)}", who.tenant) for c, r in others]
        why = _why(best, release, ask, who.tenant)
        chosen = _told(best, release, why, who.tenant).model_copy(update={"chosen": True})
        lifetime_s = self.settings.grant_lifetime_s
        grant, claims = issue(
            self.key,
            tenant=best.tenant,
            subject=ask.device,
            models=(best.model,),
            now_s=self.clock(),
            lifetime_s=lifetime_s,
        )
        return MatchAnswer(
            tenant=best.tenant,
            model=best.model,
            version=release.version,
            digest=release.digest,
            bytes=release.bytes,
            format=release.format,
            rule=best.rule.name if best.rule and best.rule.tenant == who.tenant else None,
            why=why,
            considered=(chosen, *told)[:_MOST_TOLD],
            edges=near,
            keys=tuple(key.pem for key in self.keys(best.tenant)),
            grant=grant,
            grant_expires_s=claims.expires_s,
        )

    def grant(self, who: Who, ask: GrantAsk) -> GrantAnswer:
        """Leave for a device to fetch models of the asking tenant from any edge.

        Raises:
            NotAllowed: leave to tell the truth is asked for, and the token lacks the scope.
        """
        if ask.truth and not who.operator and "truth" not in who.scopes:
            raise NotAllowed(
                "a grant with leave to tell the truth needs a token of scopes device and truth; leave 'truth' out, or show another"
            )
        text, claims = issue(
            self.key,
            tenant=who.tenant,
            subject=ask.device,
            models=ask.models,
            now_s=self.clock(),
            lifetime_s=ask.lifetime_s,
            truth=ask.truth,
        )
        keys = tuple(key.pem for key in self.keys(who.tenant))
        return GrantAnswer(grant=text, expires_s=claims.expires_s, keys=keys)

    def _tried(
        self, connection: sa.Connection, candidate: _Candidate, ask: MatchAsk, areas: Areas, time_s: float
    ) -> tuple[Release | None, str]:
        """The release of a candidate that fits, or why it does not."""
        publication = publication_of(connection, candidate.tenant, candidate.model)
        if publication is None:
            return None, "it is not published"
        if candidate.rule and (reason := _misses(candidate.rule, ask, areas, time_s)):
            return None, reason
        release = release_of(connection, candidate.tenant, candidate.model, _pick(publication, candidate.model, ask.device))
        return release, _lacks(_figures(candidate, release), release, ask.requirements)

    def _near(
        self, connection: sa.Connection, best: _Candidate, release: Release, place: Location | None
    ) -> tuple[NearEdge, ...]:
        """Living edges that shall hold the release: those that do first, then by distance."""
        since_s = self.clock() - self.settings.alive_s
        alive = holders(connection, best.tenant, best.model, seen_since_s=since_s)
        near = [_near_edge(edge_of(row), best.tenant, release, place) for row in alive]
        return tuple(sorted(near, key=lambda e: (not e.holds, e.distance_m or 0.0, e.name))[:_MOST_EDGES])


def _candidates(connection: sa.Connection, tenant: str, by_requirement: bool) -> Iterator[_Candidate]:
    """The tenant's rules, rules of owners on models that they share, and, by requirement, models that no rule is about."""
    m, r = tables.models, tables.rules
    visible = sa.select(m).where(sa.or_(m.c.tenant == tenant, m.c.visibility == "shared")).order_by(m.c.tenant, m.c.name)
    models = {(row.tenant, row.name): ModelForm.model_validate_json(row.document) for row in connection.execute(visible)}
    wanted = sa.select(r.c.document).where(sa.or_(r.c.tenant == tenant, r.c.owner == r.c.tenant)).order_by(r.c.tenant, r.c.name)
    ruled = set()
    for document in connection.execute(wanted).scalars():
        rule = PlacementRule.model_validate_json(document)
        meant = (rule.owner or rule.tenant, rule.model)
        if meant in models:
            ruled.add(meant)
            yield _Candidate(*meant, models[meant].figures, rule)
    for meant, form in models.items():
        if by_requirement and meant not in ruled:
            yield _Candidate(*meant, form.figures, None)


def _misses(rule: PlacementRule, ask: MatchAsk, areas: Areas, time_s: float) -> str:
    """Why a rule does not fit; "": it does."""
    if rule.services and ask.service not in rule.services:
        return f"it is for the services {', '.join(rule.services)}"
    if rule.user_classes and ask.user_class not in rule.user_classes:
        return f"it is for the user classes {', '.join(rule.user_classes)}"
    if rule.areas and not _inside(rule, ask.location, areas):
        return f"it is for the areas {', '.join(rule.areas)}" + ("" if ask.location else "; the device did not say where it is")
    if rule.hours and not any(is_open(hours, rule.timezone, time_s) for hours in rule.hours):
        return "it is for other hours"
    return ""


def _inside(rule: PlacementRule, place: Location | None, areas: Areas) -> bool:
    named = (area_named(areas, rule.tenant, name) for name in rule.areas)
    return place is not None and any(area is not None and covers(area.geometry, place) for area in named)


def is_open(hours: Hours, timezone: str, time_s: float) -> bool:
    """Whether a time lies in a stretch of the day; one over midnight belongs to the day it begins on."""
    local = datetime.fromtimestamp(time_s, UTC).astimezone(ZoneInfo(timezone))
    minute, today = local.hour * 60 + local.minute, local.weekday()
    start, stop = _minutes(hours.start), _minutes(hours.stop)
    days = {DAYS.index(day) for day in hours.days}
    if start < stop:
        return today in days and start <= minute < stop
    return (today in days and minute >= start) or ((today - 1) % 7 in days and minute < stop)


def _minutes(text: str) -> int:
    hour, _, minute = text.partition(":")
    return int(hour) * 60 + int(minute)


def _figures(candidate: _Candidate, release: Release) -> Figures:
    """What a release states, and where it states nothing what its model does."""
    return candidate.figures.model_copy(update=release.figures.model_dump(exclude_none=True))


def _lacks(figures: Figures, release: Release, needs: Requirements | None) -> str:
    """Which requirement is not met; "": none."""
    if needs is None:
        return ""
    if (figures.task or "").casefold().split() != needs.task.casefold().split():
        return f"its task is '{figures.task or 'not stated'}'"
    if needs.formats and release.format not in needs.formats:
        return f"its format is {release.format}"
    if needs.bytes is not None and release.bytes > needs.bytes:
        return f"it has {release.bytes:,} bytes"
    if needs.latency_ms is not None and (figures.latency_ms is None or figures.latency_ms > needs.latency_ms):
        return f"its latency is {'not stated' if figures.latency_ms is None else f'{figures.latency_ms:g} ms'}"
    if needs.error is not None and (figures.error is None or figures.error > needs.error):
        return f"its error is {'not stated' if figures.error is None else f'{figures.error:g}'}"
    if needs.error_unit is not None and figures.error_unit != needs.error_unit:
        return f"its error is in {figures.error_unit or 'no stated unit'}"
    return ""


def _order(fit: tuple[_Candidate, Release], needs: Requirements | None, tenant: str) -> tuple[object, ...]:
    candidate, release = fit
    rule = candidate.rule
    by_rule = (
        rule is None or rule.tenant != tenant,
        -(rule.priority if rule else 0),
        -sum(bool(part) for part in (rule.services, rule.user_classes, rule.areas, rule.hours)) if rule else 0,
        rule.name if rule else "",
        candidate.tenant,
        candidate.model,
    )
    if needs is None:
        return by_rule
    figures = _figures(candidate, release)
    infinite = math.inf
    error, latency = figures.error, figures.latency_ms
    return (infinite if error is None else error, infinite if latency is None else latency, release.bytes, *by_rule)


def _pick(publication: Publication, model: str, device: str) -> str:
    """The version that a device gets: always the same while the shares stay, and spread over devices as the shares say."""
    place = int.from_bytes(sha256(f"{model}\0{device}".encode()).digest()[:8], "big") / 2**64
    shares = sorted(publication.shares.items(), key=lambda item: (item[0] != publication.version, item[0]))
    for version, share in shares:
        if place < share:
            return version
        place -= share
    return publication.version


def _near_edge(edge: Edge, tenant: str, release: Release, place: Location | None) -> NearEdge:
    held = edge.heartbeat.held if edge.heartbeat else ()
    return NearEdge(
        name=edge.name,
        url=edge.url,
        zone=edge.zone,
        provider=edge.provider,
        distance_m=None if place is None else round(distance_m(edge.location, place), 1),
        holds=any((h.tenant, h.model, h.digest) == (tenant, release.model, release.digest) for h in held),
    )


def _told(candidate: _Candidate, release: Release | None, reason: str, tenant: str) -> Considered:
    own = candidate.rule is not None and candidate.rule.tenant == tenant
    return Considered(
        tenant=candidate.tenant,
        model=candidate.model,
        version=release.version if release else None,
        rule=candidate.rule.name if candidate.rule and own else None,
        chosen=False,
        reason=reason[:500],
    )


def _why(best: _Candidate, release: Release, ask: MatchAsk, tenant: str) -> str:
    parts = []
    if best.rule:
        named = f"rule '{best.rule.name}'" if best.rule.tenant == tenant else f"a rule of {best.rule.tenant}"
        given = {
            "service": ask.service if best.rule.services else None,
            "user class": ask.user_class if best.rule.user_classes else None,
        }
        said = [f"{what} {value}" for what, value in given.items() if value]
        said += [f"in {' or '.join(best.rule.areas)}"] if best.rule.areas else []
        said += ["at this hour"] if best.rule.hours else []
        parts.append(f"{named} ({', '.join(said) or 'anywhere, for all'}), priority {best.rule.priority}")
    if ask.requirements:
        figures = _figures(best, release)
        stated = {"error": figures.error, "ms": figures.latency_ms}
        known = [
            f"{name} {value:g}" if name == "error" else f"{value:g} {name}" for name, value in stated.items() if value is not None
        ]
        parts.append(f"{figures.task}: {', '.join([*known, f'{release.bytes:,} bytes'])}; {_why_first(ask.requirements)}")
    return "; ".join(parts)[:500]


def _why_first(needs: Requirements | None) -> str:
    if needs is None:
        return "the highest priority goes first"
    return "the smallest error goes first, then latency, then size"


def _nothing(told: list[Considered]) -> str:
    reasons = "; ".join(f"{c.model}: {c.reason}" for c in told[:10])
    return f"no model fits ({reasons or 'you have no published model with a rule, and none is shared'}); change the request or the rules"
