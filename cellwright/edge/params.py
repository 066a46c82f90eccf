"""Section `edge` of params.yaml: what one edge server takes on, keeps and is told by."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cellwright.sections import Count, Positive, Section

Degrees = Annotated[float, Field(ge=-180, le=180, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class EdgeParams(Section):
    """The edge server (`cellwright edge serve`), whose options override these keys; paths are the project's."""

    host: str = Field("127.0.0.1", description="address to listen on; another than this machine's own needs TLS, or insecure")
    port: Annotated[int, Field(ge=0, le=65_535)] = Field(8080, description="port to listen on; 0: any free one")
    tls_certificate: str | None = Field(None, description="certificate (PEM); null: no TLS")
    tls_key: str | None = Field(None, description="the certificate's key (PEM)")
    insecure: bool = Field(False, description="whether to serve to other machines without TLS: a proxy in front does that")
    behind_nginx: bool = Field(False, description="whether nginx in front sends the files (`cellwright edge nginx-config`)")
    access_log: bool = Field(False, description="whether to write a JSON line for each request to stdout")
    trust: tuple[str, ...] = Field((), description="public keys (PEM) whose bundles are served, besides the workspace's own")
    precision: Literal["fp32", "int8"] = Field("fp32", description="int8: of bundles that offer such a model, it forecasts")
    workers: Annotated[int, Field(ge=0)] = Field(0, description="threads that run models; 0: one a core")
    queue: Annotated[int, Field(ge=0)] = Field(64, description="forecasts that may wait for a thread; beyond, the answer is 429")
    batch_ms: Positive = Field(5, description="requests run together as long as that is expected to take no longer, milliseconds")
    truth_token_file: str | None = Field(
        None, description="file with the token of who may tell the truth of a version on trial; null: whoever reaches the edge"
    )
    metrics_token_file: str | None = Field(
        None,
        description="file with the token of who may read /metrics and what is held; null: all, on this machine alone if it has a hub",
    )
    senders: Count = Field(64, description="threads that send files to fast clients; beyond, the event loop sends them")
    body_bytes: Count = Field(4 * 1024**2, description="largest body of a request, bytes")
    look_s: Positive = Field(1, description="how often the published folder is looked at, seconds")
    shutdown_s: Seconds = Field(10, description="how long running requests may take to finish at the end, seconds")
    head_s: Positive = Field(10, description="longest time for a request's head, seconds; who takes longer is cut off")
    silence_s: Positive = Field(30, description="longest time in which a client takes or sends nothing, seconds")
    idle_s: Positive = Field(75, description="how long a connection may stay open without a request, seconds")
    connections: Count = Field(10_000, description="connections at once")
    connections_per_client: Annotated[int, Field(ge=0)] = Field(
        1024, description="of them, those of one address; 0: no limit, as where a proxy is in front"
    )
    disk_gb: Positive = Field(20, description="what tenants' models and patches may fill, GB")
    eviction: str = Field("popularity", description="what goes first where that does not suffice: popularity, size, density")
    linger_s: Seconds = Field(30, description="a version that is not wanted any more goes when unused for so long, seconds")
    pulls: Count = Field(4, description="versions pulled from the hub at once")
    heartbeat_s: Positive = Field(10, description="how often the hub hears from this edge, seconds")
    hub: str | None = Field(None, description="hub that says what to hold for tenants; null: the published bundles alone")
    hub_token_file: str | None = Field(None, description="file with the hub's token (scope edge, named as this edge)")
    hub_ca: str | None = Field(None, description="certificate authority (PEM) of the hub, where it is no public one")
    name: str | None = Field(None, description="this edge's name at the hub")
    location: tuple[Degrees, Annotated[float, Field(ge=-90, le=90)]] | None = Field(
        None, description="where it stands: [longitude, latitude], degrees"
    )
    url: str | None = Field(None, description="where devices reach it; null: where it listens")
    zone: str | None = Field(None, description="its edge cloud zone (CAMARA Simple Edge Discovery)")
    network: str | None = Field(
        None, description="network that is asked for quality of service when a device arrives (CAMARA); null: none"
    )
    network_token_file: str | None = Field(None, description="file with the token for the network")
    network_address: str | None = Field(None, description="this edge's address as the network sees it; null: host")
