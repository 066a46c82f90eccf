"""Grants: believed only as the hub signed them, only while they are valid, only for what they name."""

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cellwright.bundle import dsse
from cellwright.bundle.manifest import canonical
from cellwright.errors import GrantRefused
from cellwright.hub.grant import LONGEST, check, issue

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key()


def given_to(models=("guide",), lifetime_s=600.0, key=KEY):
    return issue(key, tenant="company-a", subject="ue-1", models=models, now_s=1000.0, lifetime_s=lifetime_s)[0]


def encoded(content):
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def test_a_grant_says_who_may_fetch_what_until_when():
    found = check(given_to(), PUBLIC, 1010.0)
    assert (found.tenant, found.subject, found.models, found.expires_s) == ("company-a", "ue-1", ("guide",), 1600.0)
    assert found.allows("company-a", "guide")
    assert not found.allows("company-a", "other")
    assert not found.allows("company-b", "guide")
    assert check(given_to(("*",)), PUBLIC, 1010.0).allows("company-a", "anything")


@pytest.mark.parametrize("now_s", [940.0, 1000.0, 1600.0, 1659.9])
def test_clocks_may_differ_by_a_minute(now_s):
    assert check(given_to(), PUBLIC, now_s).subject == "ue-1"


@pytest.mark.parametrize(("now_s", "why"), [(939.0, "becomes valid"), (1660.0, "expired"), (1e9, "expired")])
def test_outside_of_its_time_it_is_refused(now_s, why):
    with pytest.raises(GrantRefused, match=why):
        check(given_to(), PUBLIC, now_s)


def test_another_hub_is_not_believed():
    with pytest.raises(GrantRefused, match="not signed by this hub"):
        check(given_to(key=Ed25519PrivateKey.generate()), PUBLIC, 1010.0)


def test_claims_changed_after_signing_are_refused():
    head, _, tail = given_to().partition(".")
    claims = json.loads(base64.urlsafe_b64decode(head + "=="))
    claims["models"] = ["*"]
    with pytest.raises(GrantRefused, match="not signed"):
        check(f"{encoded(canonical(claims))}.{tail}", PUBLIC, 1010.0)


def test_another_document_that_the_hub_signed_is_no_grant():
    claims = base64.urlsafe_b64decode(given_to().partition(".")[0] + "==")
    other = KEY.sign(dsse.pae("application/vnd.oci.descriptor.v1+json", claims))
    for signature in (other, KEY.sign(claims)):
        with pytest.raises(GrantRefused, match="not signed"):
            check(f"{encoded(claims)}.{encoded(signature)}", PUBLIC, 1010.0)


def test_claims_of_another_form_are_refused_though_signed():
    claims = canonical({"tenant": "company-a", "admin": True})
    with pytest.raises(GrantRefused, match="claims"):
        check(
            f"{encoded(claims)}.{encoded(KEY.sign(dsse.pae('application/vnd.cellwright.grant.v1+json', claims)))}", PUBLIC, 1010.0
        )


def test_a_grant_of_more_than_a_day_is_not_made():
    with pytest.raises(ValidationError):
        given_to(lifetime_s=86_401)


def test_a_long_text_is_refused_before_it_is_decoded():
    with pytest.raises(GrantRefused, match="at most"):
        check("a" * (LONGEST + 1), PUBLIC, 1010.0)


@given(st.text(max_size=300))
def test_no_text_breaks_it(text):
    with pytest.raises(GrantRefused):
        check(text, PUBLIC, 1010.0)


@given(st.data())
def test_one_changed_character_is_refused(data):
    text = given_to()
    place = data.draw(st.integers(0, len(text) - 1))
    changed = text[:place] + data.draw(st.characters(codec="ascii").filter(lambda c: c != text[place])) + text[place + 1 :]
    with pytest.raises(GrantRefused):
        check(changed, PUBLIC, 1010.0)
