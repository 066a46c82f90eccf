"""Hub and edges over TLS by an authority of one's own: believed where it is named, refused with a reason where it is not."""

import datetime
import ipaddress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from fetch_parts import WANTED, cloud_of, noise, until

from cellwright.bundle import store
from cellwright.edge.device import Device
from cellwright.errors import EdgeError, HubError
from cellwright.hub.client import HubClient

CONTENT = noise(400_000)


def signed(name, key, issuer, by, *, authority):
    """A certificate for `key`, good for a day; of a server on loopback, or of an authority."""
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    if not authority:
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        made = made.add_extension(x509.SubjectAlternativeName([address]), critical=False)
    return made.sign(by, hashes.SHA256()).public_bytes(Encoding.PEM)


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    """Certificate and key of the servers, their authority, and another authority."""
    folder = tmp_path_factory.mktemp("tls")
    own, other, server = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    (folder / "own.pem").write_bytes(signed("own", own, "own", own, authority=True))
    (folder / "other.pem").write_bytes(signed("other", other, "other", other, authority=True))
    (folder / "server.pem").write_bytes(signed("server", server, "own", own, authority=False))
    (folder / "key.pem").write_bytes(server.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return folder


@pytest.fixture(scope="module")
def cloud(tmp_path_factory, tls):
    secured = (tls / "server.pem", tls / "key.pem", tls / "own.pem")
    with cloud_of(tmp_path_factory.mktemp("cloud"), CONTENT, [("east", 2.05)], {}, tls=secured) as made:
        yield made


def test_a_model_comes_through_hub_and_edge_over_tls_and_the_report_goes_back(cloud, tls, tmp_path):
    device = Device(tmp_path / "device", {}, name="ue-1", ca=tls / "own.pem")
    fetched = device.get(cloud.acme, WANTED)
    assert [stop.url[:8] for stop in fetched.edges] == ["https://"]
    assert (cloud.url[:8], fetched.notes) == ("https://", ())
    folder, manifest = store.latest(device.folder / "tenants/acme/bundles", "guide", device.of("acme")._trust)
    assert (folder / manifest.layers["model.bin"].blob).read_bytes() == CONTENT
    assert until(cloud.acme.fetches)[0].bytes == fetched.transfer.received_bytes


@pytest.mark.parametrize("ca", ["other.pem", None])
def test_an_edge_by_another_authority_is_refused_and_why(cloud, tls, tmp_path, ca):
    device = Device(tmp_path / "device", {}, name="ue-1", ca=tls / ca if ca else None)
    with pytest.raises(EdgeError, match=r"its certificate is not believed: .*name the authority that signed it \(--ca\)"):
        device.get(cloud.acme, WANTED)
    assert device.of("acme").active() == {}


@pytest.mark.parametrize("ca", ["other.pem", None])
def test_a_hub_by_another_authority_is_refused(cloud, tls, tmp_path, ca):
    token = cloud.token("acme", "ue-1", "device")
    with (
        HubClient(cloud.url, token, ca=tls / ca if ca else None) as stranger,
        pytest.raises(HubError, match="CERTIFICATE_VERIFY_FAILED"),
    ):
        Device(tmp_path / "device", {}, name="ue-1", ca=tls / "own.pem").get(stranger, WANTED)
