"""What params.yaml asks of a vertical or a transfer federation, held against the catalogue before anything is fetched or trained."""

from __future__ import annotations

from cellwright.catalogue import Catalogue
from cellwright.errors import FederationError, ParamsError, UnknownName
from cellwright.params import Params, PartyParams, TransferParams, VerticalParams

GUIDE = "docs/federation.md"


def vertical_asked(params: Params) -> VerticalParams:
    """The section `federation.vertical`.

    Raises:
        ParamsError: there is none, or it contradicts itself.
        UnknownName: the active party is none of the parties.
    """
    asked = params.federation.vertical
    if asked is None:
        raise ParamsError(
            f"federation.vertical is not set for data set '{params.dataset}'; say in params.yaml which party holds which features, as "
            f"{GUIDE} shows"
        )
    if asked.active not in asked.parties:
        raise UnknownName(
            "party", asked.active, asked.parties, hint="federation.vertical.active is one of federation.vertical.parties."
        )
    if asked.embedding_noise and asked.embedding_clip is None:
        raise ParamsError("federation.vertical.embedding_noise is in units of embedding_clip; set embedding_clip too")
    if asked.epsilon is not None and not asked.embedding_noise:
        raise ParamsError(
            "federation.vertical.epsilon bounds the epochs by the noise; set embedding_noise and embedding_clip too"
        )
    if asked.pooled and (asked.align == "time" or len({(p.dataset, p.sites) for p in asked.parties.values()}) > 1):
        raise ParamsError(
            "federation.vertical.pooled wants parties of the same data set and sites, aligned by site_time: their features must fit "
            "side by side"
        )
    _here(params)
    return asked


def transfer_asked(params: Params) -> TransferParams:
    """The section `federation.transfer`, its rule and model filled in.

    Raises:
        ParamsError: there is none, its source is the data set itself, or its rule or model do not fit.
    """
    from cellwright.federation.aggregation import rule

    asked = params.federation.transfer
    if asked is None:
        raise ParamsError(
            f"federation.transfer is not set for data set '{params.dataset}'; name its source, as {GUIDE} shows, or give "
            "--set federation.transfer.source=<data set>"
        )
    if asked.source == params.dataset:
        raise ParamsError(
            f"federation.transfer.source is '{asked.source}', which is the data set to train on; name another one, whose owners "
            "train the body"
        )
    full = asked.model_copy(
        update={"rule": asked.rule or params.federation.rule, "model": asked.model or params.federation.model}
    )
    if "auto" in (full.rule, full.model):
        raise ParamsError("a transfer trains twice with one rule and one model; name both, 'auto' chooses for one data set")
    made = rule(str(full.rule), params.federation.rule_options)
    if made.closed_form or not made.one_model or made.regional:
        raise ParamsError(f"{made.title} does not end with one network whose body could be reused; take fedavg, for example")
    if params.federation.privacy and asked.compare:
        raise ParamsError(
            "federation.privacy: to compare, the same owners train twice, which spends their privacy budget twice; set "
            "federation.transfer.compare to false"
        )
    _here(params)
    return full


def party_dataset(params: Params, party: PartyParams) -> str:
    """The data set that a party's telemetry is of."""
    return party.dataset or params.dataset


def datasets(params: Params, kind: str) -> tuple[str, ...]:
    """The data sets that a `kind` of federation needs, the run's own first."""
    if kind == "vertical":
        needed = [party_dataset(params, party) for party in vertical_asked(params).parties.values()]
    else:
        needed = [transfer_asked(params).source]
    return tuple(dict.fromkeys([params.dataset, *needed]))


def check_asked(params: Params, kind: str, catalogue: Catalogue) -> None:
    """Whether the data sets that are named have these features, and one cadence and clock.

    Raises:
        UnknownName: no such data set or feature.
        FederationError: another cadence or clock.
    """
    entries = [catalogue.entry(name) for name in datasets(params, kind)]
    own = entries[0]
    for other in entries[1:]:
        if other.cadence_s != own.cadence_s:
            raise FederationError(
                f"'{other.name}' has a row every {other.cadence_s:g} s, '{own.name}' one every {own.cadence_s:g} s; a network counts in "
                "steps, so that both must have the same cadence: name another data set"
            )
        if kind == "vertical" and other.clock != own.clock:
            raise FederationError(
                f"'{other.name}' has a {other.clock} clock, '{own.name}' a {own.clock} one; no time stamp of theirs can be the same"
            )
    if kind == "vertical":
        for name, party in vertical_asked(params).parties.items():
            _check_features(name, party, catalogue, party_dataset(params, party), active=name == vertical_asked(params).active)


def _check_features(name: str, party: PartyParams, catalogue: Catalogue, dataset: str, *, active: bool) -> None:
    known = catalogue.entry(dataset).features
    for feature in party.features:
        if feature not in known:
            raise UnknownName("feature", feature, known, hint=f"Party '{name}' holds telemetry of '{dataset}'.")
    if not party.features and not active:
        raise ParamsError(f"federation.vertical.parties.{name} holds no features; a party that is not active needs at least one")


def _here(params: Params) -> None:
    if params.federation.runtime != "local":
        raise ParamsError(
            "federation.runtime is 'deployed', but vertical and transfer federations run in one process so far; set it to local"
        )
