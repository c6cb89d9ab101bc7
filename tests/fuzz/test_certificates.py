"""Mutated certificates, keys and requests, in files and from peers.

Whatever the bytes: `Credentials` stand or raise `CredentialsError`, `issue` makes a certificate or
raises `CredentialsError`, `identity_of` gives an identity or raises `ValueError`, and a peer that
presents them gets no channel.
"""

import base64
import re
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

from qstack.channel.ca import Credentials, CredentialsError, identity_of, issue
from qstack.channel.identity import Identity
from qstack.channel.tls import make_context
from tests.channel.peers import ALICE, BOB, World
from tests.fuzz import tally
from tests.fuzz.mutator import mutated, named

_ARMOUR = re.compile(rb"-----BEGIN ([A-Z ]+)-----\n(.*?)-----END", re.DOTALL)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("fuzz"))


def armoured(label: str, der: bytes) -> bytes:
    """PEM."""
    text = base64.encodebytes(der)
    name = label.encode()
    return b"-----BEGIN " + name + b"-----\n" + text + b"-----END " + name + b"-----\n"


def inside(rng: Random, pem: bytes, others: list[bytes]) -> bytes:
    """PEM whose content has been changed, under a whole armour."""
    contents = [base64.b64decode(found[2]) for p in [pem, *others] for found in _ARMOUR.finditer(p)]
    found = _ARMOUR.search(pem)
    assert found is not None
    der = mutated(rng, [contents[0], contents[0], contents[0], *contents], times_max=2)
    return armoured(found[1].decode(), der)


def changed(rng: Random, pem: bytes, others: list[bytes]) -> bytes:
    """PEM that is changed within or without."""
    return inside(rng, pem, others) if rng.random() < 0.7 else mutated(rng, [pem, *others])


def odd_requests() -> list[bytes]:
    """Requests for keys that are not ours."""
    keys = [
        ed25519.Ed25519PrivateKey.generate(),
        ec.generate_private_key(ec.SECP256R1()),
        rsa.generate_private_key(65537, 2048),
    ]
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "alice")])
    requests = []
    for key in keys:
        algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else SHA256()
        csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, algorithm)
        requests.append(csr.public_bytes(serialization.Encoding.PEM))
    return requests


class Folder:
    """The files of alice, any of which may be replaced."""

    def __init__(self, world: World, folder: Path) -> None:
        certificate, key = world.files(ALICE)
        other, other_key = world.files(BOB)
        self.folder = folder
        self.good = {
            "alice.node.pem": certificate.read_bytes(),
            "alice.node.key": key.read_bytes(),
            "root.pem": world.root.read_bytes(),
        }
        self.others = [other.read_bytes(), other_key.read_bytes(), *odd_requests()]
        for name in self.good:
            self.write(name)

    def write(self, name: str, data: bytes | None = None) -> None:
        path = self.folder / name
        path.write_bytes(self.good[name] if data is None else data)
        path.chmod(0o600)


def run_files(world: World, folder: Path, seed: int, inputs: int) -> dict[str, int]:
    """Credentials with one file changed; if they stand, TLS takes them or says so."""
    rng = Random(seed)
    files = Folder(world, folder)
    outcomes = {"refused": 0, "good": 0}
    for number in range(inputs):
        name = rng.choice(sorted(files.good))
        data = changed(rng, files.good[name], [*files.good.values(), *files.others])
        files.write(name, data)
        with named(seed, number, data):
            try:
                credentials = Credentials.in_folder(folder, ALICE)
                make_context(credentials, server=number % 2 == 0)
            except CredentialsError as error:
                words = str(error)
                outcomes["refused"] += 1
            else:
                words = str(folder)
                outcomes["good"] += 1
            assert str(folder) in words
            assert "PRIVATE" not in words
        files.write(name)
    return outcomes


def run_names(world: World, seed: int, inputs: int) -> int:
    """`identity_of` of whatever is still a certificate; how many were."""
    rng = Random(seed)
    good = [world.files(who)[0].read_bytes() for who in (ALICE, BOB)]
    good.append(world.root.read_bytes())
    certificates = 0
    for number in range(inputs):
        data = inside(rng, rng.choice(good), [])
        with named(seed, number, data):
            try:
                certificate = x509.load_pem_x509_certificate(data)
            except (ValueError, x509.InvalidVersion):
                continue
            certificates += 1
            with suppress(ValueError):
                assert isinstance(identity_of(certificate), Identity)
    return certificates


def run_requests(world: World, folder: Path, seed: int, inputs: int) -> dict[str, int]:
    """`issue` for changed requests: what it issues is for the name the operator stated."""
    rng = Random(seed)
    world.files(ALICE)
    [good] = [path.read_bytes() for path in (world.folder / f"host{world._made}").glob("*.csr")]
    others = [*odd_requests(), world.root.read_bytes()]
    outcomes = {"refused": 0, "issued": 0}
    for number in range(inputs):
        data = changed(rng, good, others) if rng.random() < 0.98 else rng.choice([good, *others])
        with named(seed, number, data):
            try:
                pem = issue(world.ca, data, BOB)
            except CredentialsError:
                outcomes["refused"] += 1
            else:
                assert identity_of(x509.load_pem_x509_certificate(pem)) == BOB
                outcomes["issued"] += 1
    return outcomes


def test_mutated_files_are_credentials_or_an_error_that_names_them(
    world: World, tmp_path: Path
) -> None:
    assert run_files(world, tmp_path, seed=31, inputs=500)["refused"] > 300


def test_the_name_in_a_mutated_certificate_is_a_whole_one_or_none(world: World) -> None:
    assert run_names(world, seed=32, inputs=400) > 100


def test_mutated_requests_are_refused_or_issued_for_the_name_that_was_stated(
    world: World, tmp_path: Path
) -> None:
    outcomes = run_requests(world, tmp_path, seed=33, inputs=300)
    assert outcomes["refused"] > 200
    assert outcomes["issued"] > 0


def test_a_certificate_of_an_impossible_version_is_refused(world: World, tmp_path: Path) -> None:
    """The library's InvalidVersion is no ValueError, and came through."""
    files = Folder(world, tmp_path)
    for name in ("alice.node.pem", "root.pem"):
        [found] = _ARMOUR.finditer(files.good[name])
        der = base64.b64decode(found[2]).replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x42")
        files.write(name, armoured("CERTIFICATE", der))
        with pytest.raises(CredentialsError, match="is not a certificate"):
            Credentials.in_folder(tmp_path, ALICE)
        files.write(name)


def test_a_certificate_with_an_extension_twice_names_nobody(world: World) -> None:
    [found] = _ARMOUR.finditer(world.files(ALICE)[0].read_bytes())
    der = base64.b64decode(found[2])
    usage, name = bytes.fromhex("0603551d0f"), bytes.fromhex("0603551d11")
    assert der.count(usage) == 1
    twice = x509.load_der_x509_certificate(der.replace(usage, name))
    with pytest.raises(ValueError, match="cannot be read"):
        identity_of(twice)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(3000, 3010))
def test_many_mutated_files_names_and_requests(world: World, tmp_path: Path, seed: int) -> None:
    run_files(world, tmp_path, seed, inputs=800)
    run_names(world, seed, inputs=800)
    run_requests(world, tmp_path, seed, inputs=400)
    tally.add("certificates", 2000)
