"""A configuration of nginx in front of an edge: nginx sends the files, the edge says who may have them.

The edge answers a file's request with X-Accel-Redirect; nginx then sends it from the store by sendfile, ranges and all. Forecasts and
everything else pass through. The edge listens on loopback, and trusts nobody but nginx to reach it there.
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from pathlib import Path

from cellwright.edge.files import ACCEL_PREFIX
from cellwright.errors import WrongUse

_PLAIN = string.ascii_letters + string.digits + "/._-+~"


@dataclass(frozen=True)
class Front:
    """Where nginx listens and what it sends. `folder`: for its own files (process id, logs, buffers)."""

    store: Path
    folder: Path
    edge: str = "127.0.0.1:8080"
    listen: str = "8081"
    certificate: Path | None = None
    key: Path | None = None
    silence_s: int = 30  # a client that sends or takes nothing for so long is cut off
    per_client: int = 256  # connections of one address
    body_bytes: int = 4 * 1024**2


def config(front: Front) -> str:
    """The whole of an nginx.conf. Raises WrongUse: a path or address that nginx would misread, or half a certificate."""
    if (front.certificate is None) != (front.key is None):
        raise WrongUse("a certificate and its key belong together; give both")
    for given in (
        front.store,
        front.folder,
        front.certificate,
        front.key,
        front.edge.replace(":", ""),
        front.listen.replace(":", ""),
    ):
        if given is not None and not set(str(given)) <= set(_PLAIN) | set("[]"):
            raise WrongUse(f"'{given}' has characters that nginx's configuration would misread; use letters, digits and /._-+~")
    tls = ""
    if front.certificate is not None and front.key is not None:
        tls = (
            f"ssl_certificate {front.certificate.resolve()};\n        ssl_certificate_key {front.key.resolve()};\n        "
            "ssl_protocols TLSv1.2 TLSv1.3;\n        "
        )
    return _CONFIG.substitute(
        store=front.store.resolve(),
        folder=front.folder.resolve(),
        edge=front.edge,
        listen=f"{front.listen}{' ssl' if tls else ''}",
        tls=tls,
        silence_s=front.silence_s,
        per_client=front.per_client,
        body_bytes=front.body_bytes,
        prefix=ACCEL_PREFIX,
    )


_CONFIG = string.Template("""\
# Made by `cellwright edge nginx-config`. Run: nginx -c <this file>
worker_processes auto;
pid $folder/nginx.pid;
error_log $folder/error.log warn;

events {
    worker_connections 16384;
    multi_accept on;
}

http {
    access_log off;
    default_type application/octet-stream;
    server_tokens off;
    client_body_temp_path $folder/body;
    proxy_temp_path $folder/proxy;
    fastcgi_temp_path $folder/fastcgi;
    uwsgi_temp_path $folder/uwsgi;
    scgi_temp_path $folder/scgi;

    sendfile on;
    sendfile_max_chunk 2m;
    tcp_nopush on;
    tcp_nodelay on;
    keepalive_timeout 75s;
    keepalive_requests 100000;

    # clients that are slow on purpose
    client_header_timeout ${silence_s}s;
    client_body_timeout ${silence_s}s;
    send_timeout ${silence_s}s;
    reset_timedout_connection on;
    client_max_body_size $body_bytes;
    limit_conn_zone $$binary_remote_addr zone=clients:10m;
    limit_conn clients $per_client;
    limit_conn_status 503;

    upstream edge {
        server $edge;
        keepalive 64;
    }

    server {
        listen $listen;
        ${tls}location / {
            proxy_pass http://edge;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $$http_host;
            proxy_set_header X-Forwarded-For $$remote_addr;
            proxy_read_timeout 60s;
        }

        location $prefix/ {
            internal;
            alias $store/;
            disable_symlinks if_not_owner from=$store;
            etag off;
            add_header ETag $$upstream_http_etag;
            add_header Last-Modified "";
            add_header X-Content-Type-Options nosniff;
        }
    }
}
""")
