"""Asking edges for their evidence: whatever comes back, the controller goes on."""

from http.server import BaseHTTPRequestHandler

import pytest

from cellwright.lifecycle.rollout import watching
from cellwright.lifecycle.rollout.watching import Watch


@pytest.fixture
def answering(answering_by):
    def made(parts, sent):
        """An edge that answers so; what it got rid of is counted in `sent`."""

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.end_headers()
                try:
                    for part in parts():
                        self.wfile.write(part)
                        sent.append(len(part))
                except OSError:
                    pass  # the other side has hung up, as it should

            def log_message(self, *_):
                pass

        return answering_by(Handler)

    return made


def endless():
    while True:
        yield bytes(1 << 16)


@pytest.mark.parametrize(
    ("parts", "why"), [(endless, "more than"), (lambda: [b'{"edge": 1}'], "no evidence"), (lambda: [b"\xff\xfe"], "no evidence")]
)
def test_an_edge_that_answers_nonsense_or_without_end_is_named(parts, why, monkeypatch, answering):
    monkeypatch.setattr(watching, "_MOST_BYTES", 1 << 20)
    sent: list[int] = []
    watch = Watch()
    with answering(parts, sent) as url:
        waiting = watch.poll({"a": url}, {}, "m", lambda found: True)
        watch.close()
    assert why in waiting["a"]
    assert watch.seen == ()
    assert sum(sent) < 64 << 20
