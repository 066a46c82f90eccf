"""Certificates and keys of a deployed federation: a CA of its own, the SuperLink's certificate, an EC key for each SuperNode.

For loopback and for trying several machines out; a production site brings certificates of its own CA under the same names. Private keys
are written with mode 600 and never overwritten: what is there already is used.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat, load_pem_private_key
from cryptography.hazmat.primitives.serialization.ssh import load_ssh_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cellwright.errors import FederationError
from cellwright.federation.audit.keyfiles import read_secret, write_secret
from cellwright.files import write_bytes

DAYS = 397  # of a server's certificate
_CA_DAYS = 3650
_CURVE = ec.SECP384R1()  # one of those that Flower takes for SuperNodes
_RENEW = timedelta(days=14)  # a certificate that ends sooner is made anew


def authority(folder: Path) -> Path:
    """The CA's certificate `ca.pem` in `folder`, made with its key `ca.key` where there is none.

    Raises:
        FederationError: a key without its certificate.
        WorkspaceError: the folder is not writable.
    """
    certificate, key_file = folder / "ca.pem", folder / "ca.key"
    if certificate.is_file():
        return certificate
    key = ec.generate_private_key(_CURVE)
    write_secret(key_file, _pem(key), "the CA's key")
    name = _name("Cellwright federation CA")
    made = _builder(name, name, key.public_key(), _CA_DAYS)
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    made = made.add_extension(_usage(signs=True), critical=True)
    write_bytes(certificate, made.sign(key, hashes.SHA384()).public_bytes(Encoding.PEM))
    return certificate


def server(folder: Path, hosts: Sequence[str]) -> tuple[Path, Path]:
    """The SuperLink's certificate and key, `superlink.pem` and `superlink.key`, valid for `hosts` (names or addresses).

    A certificate that is of other hosts, or about to end, is made anew by the CA in `folder`, for the same key.

    Raises:
        FederationError: the CA's key is missing or can be read by others.
    """
    ca = x509.load_pem_x509_certificate(authority(folder).read_bytes())
    certificate, key_file = folder / "superlink.pem", folder / "superlink.key"
    if key_file.is_file() and certificate.is_file() and _serves(certificate, hosts, ca):
        return certificate, key_file
    if not key_file.is_file():
        write_secret(key_file, _pem(ec.generate_private_key(_CURVE)), "the SuperLink's key")
    key = _key(key_file, "the SuperLink's key")
    made = _builder(_name("Cellwright SuperLink"), ca.subject, key.public_key(), DAYS)
    made = made.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    made = made.add_extension(_usage(signs=False), critical=True)
    made = made.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    made = made.add_extension(x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False)
    ca_key = _key(folder / "ca.key", "the CA's key")
    write_bytes(certificate, made.sign(ca_key, hashes.SHA384()).public_bytes(Encoding.PEM))
    return certificate, key_file


def node_key(path: Path) -> bytes:
    """A SuperNode's EC key at `path` (OpenSSH, as Flower reads it), made where there is none.

    Returns:
        The public key in PEM, as a SuperLink registers it.
    """
    what = "the SuperNode's key"
    if not path.is_file():
        write_secret(
            path, ec.generate_private_key(_CURVE).private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()), what
        )
    try:
        key = load_ssh_private_key(read_secret(path, what), password=None)
    except ValueError as error:
        raise FederationError(
            f"{what} {path} must be an OpenSSH key without a passphrase ({error}); move it away to have one made"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise FederationError(
            f"{what} {path} must be an EC key (P-384), found {type(key).__name__}; move it away to have one made"
        )
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _serves(certificate: Path, hosts: Sequence[str], ca: x509.Certificate) -> bool:
    """Whether a certificate is this CA's, for these hosts, and lasts a while."""
    have = x509.load_pem_x509_certificate(certificate.read_bytes())
    names = have.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    lasts = have.not_valid_after_utc - datetime.now(UTC) > _RENEW
    return lasts and have.issuer == ca.subject and set(names) >= {_host(host) for host in hosts}


def _builder(subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, days: int) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - timedelta(minutes=5)).not_valid_after(now + timedelta(days=days))


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _key(path: Path, what: str) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(read_secret(path, what), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise FederationError(f"{what} {path} must be an EC key, found {type(key).__name__}")
    return key
