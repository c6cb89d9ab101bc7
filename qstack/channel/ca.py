"""The network's certificate authority, and the credentials of one process.

    operator:  create_authority(folder, network)            root.pem, root.key
    host:      request(folder, identity)                    the key stays, the request travels
    operator:  issue(folder, csr_pem, identity)             the certificate travels back
    host:      Credentials(certificate_file, key_file, root_file)

Rules
1. A private key is made on the host that uses it, mode 0600, and never leaves it.
2. The name in a certificate is the one the operator states; whatever the request says is ignored.
3. Everything is ML-DSA-65 (FIPS 204): nothing but our own daemons has to read it.
4. No text of an error and no `repr` holds key material.
"""

import os
import stat
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from qstack.channel.identity import Identity

ROOT_CERTIFICATE: Final = "root.pem"
ROOT_KEY: Final = "root.key"
ROOT_VALID_DAYS: Final = 3650
LEAF_VALID_DAYS: Final = 90  # short: there is no revocation list
CLOCK_SKEW: Final = timedelta(minutes=5)  # hosts' clocks differ; a new certificate must work


class CredentialsError(Exception):
    """A key or certificate file cannot be used: what, where, and what to do."""


@dataclass(frozen=True)
class Credentials:
    """The files a process proves itself with, checked. Raises `CredentialsError`."""

    certificate_file: Path
    key_file: Path
    root_file: Path
    identity: Identity = field(init=False)
    not_after: datetime = field(init=False)

    def __post_init__(self) -> None:
        """Check that the files exist, are ours alone, belong together and are in date."""
        certificate = _read_certificate(self.certificate_file)
        root = _read_certificate(self.root_file)
        _check_private(self.key_file)
        _check_dates(certificate, self.certificate_file)
        _check_dates(root, self.root_file)
        try:
            certificate.verify_directly_issued_by(root)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            raise CredentialsError(
                f"{self.certificate_file} was not issued by the authority in {self.root_file}; "
                "ask the operator of this network for a certificate"
            ) from None
        try:
            identity = identity_of(certificate)
        except ValueError as error:
            raise CredentialsError(
                f"{self.certificate_file} names nobody: {error}; ask the operator for a new one"
            ) from None
        object.__setattr__(self, "identity", identity)
        object.__setattr__(self, "not_after", certificate.not_valid_after_utc)

    @classmethod
    def in_folder(cls, folder: Path, identity: Identity) -> "Credentials":
        """The credentials of `identity` under the names `request` gives, beside root.pem."""
        stem = file_stem(identity)
        return cls(folder / f"{stem}.pem", folder / f"{stem}.key", folder / ROOT_CERTIFICATE)


def file_stem(identity: Identity) -> str:
    """The name, without ending, of the files of an identity."""
    return f"{identity.node}.{identity.role}"


def identity_of(certificate: x509.Certificate) -> Identity:
    """The identity a certificate states. Raises `ValueError` unless there is exactly one."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise ValueError("it has no subject alternative name") from None
    except (x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise ValueError(f"its extensions cannot be read: {error}") from None
    if len(names) != 1 or not isinstance(next(iter(names)), x509.UniformResourceIdentifier):
        raise ValueError("it must have one subject alternative name, a URI")
    return Identity.parse(str(next(iter(names)).value))


def create_authority(folder: Path, network: str) -> Path:
    """Make root.pem and root.key of a network; the path of root.pem.

    Raises `CredentialsError` if there is an authority already or the folder is open to others.
    """
    Identity(network, "root", "operator")  # the name must fit into every URI to come
    _private_folder(folder)
    key = _create_key(folder / ROOT_KEY)
    subject = _root_subject(network)
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + timedelta(days=ROOT_VALID_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(is_authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, None)
    )
    path = folder / ROOT_CERTIFICATE
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return path


def request(folder: Path, identity: Identity) -> bytes:
    """Make the key of `identity` in `folder` (0600) and its certificate request, also as file.

    Returns the request as PEM. Raises `CredentialsError` if the key exists.
    """
    _private_folder(folder)
    stem = file_stem(identity)
    key = _create_key(folder / f"{stem}.key")
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, identity.node)])
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, None)
    pem = csr.public_bytes(serialization.Encoding.PEM)
    (folder / f"{stem}.csr").write_bytes(pem)
    return pem


def issue(
    ca_folder: Path,
    csr_pem: bytes,
    identity: Identity,
    *,
    valid_days: int = LEAF_VALID_DAYS,
    not_before: datetime | None = None,
    not_after: datetime | None = None,
) -> bytes:
    """The certificate, as PEM, of the key in a request, for the identity the operator states.

    Raises `CredentialsError` for a request that does not prove its key, a key other than
    ML-DSA-65, an identity of another network, or an authority that cannot be used.
    """
    root_file, key_file = ca_folder / ROOT_CERTIFICATE, ca_folder / ROOT_KEY
    root = _read_certificate(root_file)
    _check_dates(root, root_file)
    if root.subject != _root_subject(identity.network):
        raise CredentialsError(
            f"{root_file} is not the authority of network {identity.network!r} but "
            f"{root.subject.rfc4514_string()!r}; issue with the folder of that network"
        )
    root_key = _read_key(key_file)
    public_key = _requested_key(csr_pem)
    now = datetime.now(UTC)
    begin = not_before or now - CLOCK_SKEW
    end = min(not_after or now + timedelta(days=valid_days), root.not_valid_after_utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, identity.node)]))
        .issuer_name(root.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(is_authority=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            ),
            critical=False,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()),
            critical=False,
        )
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity.uri)]),
            critical=False,
        )
        .sign(root_key, None)
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


def _root_subject(network: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, network),
            x509.NameAttribute(NameOID.COMMON_NAME, "qstack root"),
        ]
    )


def _key_usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )


def _requested_key(csr_pem: bytes) -> MLDSA65PublicKey:
    try:
        csr = x509.load_pem_x509_csr(csr_pem)
        key = csr.public_key()
        is_proven = csr.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion):
        raise CredentialsError(
            "this is not a certificate request (PEM); make one on the host with `request`"
        ) from None
    if not isinstance(key, MLDSA65PublicKey):
        raise CredentialsError("the request is not for an ML-DSA-65 key; make a new one")
    if not is_proven:
        raise CredentialsError("the request is not signed by the key it names; make a new one")
    return key


def _private_folder(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & 0o077:
        raise CredentialsError(
            f"the folder {folder} is open to others (mode {mode:04o}); run `chmod 700 {folder}`"
        )


def _create_key(path: Path) -> MLDSA65PrivateKey:
    """A new key in a new file that nobody else could ever read."""
    key = MLDSA65PrivateKey.generate()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise CredentialsError(
            f"there is a private key in {path} already; move it away if a new one is meant"
        ) from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
    return key


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CredentialsError(
            f"cannot read {path}: {error.strerror}; make it with `qstack ca`, or correct the path"
        ) from None


def _read_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(_read(path))
    except (ValueError, x509.InvalidVersion):
        raise CredentialsError(f"{path} is not a certificate (PEM); fetch it again") from None


def _read_key(path: Path) -> MLDSA65PrivateKey:
    _check_private(path)
    try:
        key = serialization.load_pem_private_key(_read(path), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, MLDSA65PrivateKey):
        raise CredentialsError(f"{path} is not an ML-DSA-65 private key (PEM, not encrypted)")
    return key


def _check_private(path: Path) -> None:
    if b"-----BEGIN PRIVATE KEY-----" not in _read(path):
        raise CredentialsError(f"{path} is not a private key (PEM, not encrypted)")
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise CredentialsError(
            f"the key {path} is open to others (mode {mode:04o}); run `chmod 600 {path}`, and "
            "replace the key if somebody may have read it"
        )


def _check_dates(certificate: x509.Certificate, path: Path) -> None:
    now = datetime.now(UTC)
    if now > certificate.not_valid_after_utc:
        raise CredentialsError(
            f"{path} expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC; "
            "ask the operator to issue a new one"
        )
    if now < certificate.not_valid_before_utc:
        raise CredentialsError(
            f"{path} is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC; "
            "check this host's clock"
        )
