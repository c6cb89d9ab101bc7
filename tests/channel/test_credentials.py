"""Identities, the authority, and the files of a process."""

import stat
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID

from qstack.channel.ca import (
    Credentials,
    CredentialsError,
    create_authority,
    identity_of,
    issue,
    request,
)
from qstack.channel.identity import ROLES, Identity, layers_allowed
from qstack.channel.tls import make_context
from qstack.wire.frame import Layer
from tests.channel.peers import ALICE, BOB, FUTURE, PAST, World


def test_an_identity_survives_its_uri():
    for role in ROLES:
        identity = Identity("metro", "node-1", role)
        assert Identity.parse(identity.uri) == identity


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "qstack://metro/alice",
        "qstack://metro/alice/node/",
        "qstack://metro/alice/node\n",
        " qstack://metro/alice/node",
        "QSTACK://metro/alice/node",
        "qstack://metro/Alice/node",
        "qstack://metro/alice/king",
        "qstack://metro//node",
        "qstack://metro/a%6cice/node",
        "qstack://metro/alice/node?x=1",
        "qstack://1metro/alice/node",
        f"qstack://metro/{'a' * 64}/node",
        "https://metro/alice/node",
    ],
)
def test_a_uri_not_exactly_of_the_form_is_no_identity(uri):
    with pytest.raises(ValueError, match="is not of the form"):
        Identity.parse(uri)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (("metro", "Alice", "node"), "node name 'Alice'"),
        (("me/tro", "alice", "node"), "network name 'me/tro'"),
        (("metro", "alice\n", "node"), "node name"),
        (("metro", "alice", "king"), "no role 'king'"),
    ],
)
def test_an_identity_with_an_impossible_part_cannot_be_made(parts, words):
    with pytest.raises(ValueError, match=words):
        Identity(*parts)


def test_each_role_speaks_for_its_layers_and_the_session():
    layers = {role: set(layers_allowed(role)) - {Layer.SESSION} for role in ROLES}
    assert all(Layer.SESSION in layers_allowed(role) for role in ROLES)
    assert layers == {
        "node": {
            Layer.PHYSICAL,
            Layer.LINK,
            Layer.NETWORK,
            Layer.TRANSPORT,
            Layer.APPLICATION,
            Layer.CLOCK,
            Layer.NODE,
        },
        "physical": {Layer.PHYSICAL},
        "link": {Layer.LINK},
        "network": {Layer.NETWORK},
        "transport": {Layer.TRANSPORT},
        "fabric": {Layer.PHYSICAL, Layer.CLOCK},
        "station": {Layer.PHYSICAL, Layer.CLOCK, Layer.NODE},
        "operator": {Layer.CLOCK, Layer.APPLICATION},
    }


def test_key_files_are_for_their_owner_alone(tmp_path):
    root = create_authority(tmp_path / "ca", "metro")
    request(tmp_path / "host", ALICE)
    for key in (root.with_suffix(".key"), tmp_path / "host" / "alice.node.key"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700


def test_a_leaf_says_what_it_is_for(world):
    certificate = x509.load_pem_x509_certificate(world.files(ALICE)[0].read_bytes())
    of = certificate.extensions.get_extension_for_class
    assert isinstance(certificate.public_key(), MLDSA65PublicKey)
    assert identity_of(certificate) == ALICE
    assert not of(x509.BasicConstraints).value.ca
    assert of(x509.KeyUsage).value.digital_signature
    assert not of(x509.KeyUsage).value.key_cert_sign
    assert list(of(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.CLIENT_AUTH,
    ]
    root = x509.load_pem_x509_certificate(world.root.read_bytes())
    key_id = root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    assert of(x509.AuthorityKeyIdentifier).value.key_identifier == key_id
    assert of(x509.SubjectKeyIdentifier).value.digest
    assert (certificate.not_valid_after_utc - datetime.now(UTC)).days == 89


def csr_with(key: object, *, name: str | None = None) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if name is not None:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(name)])
        builder = builder.add_extension(names, critical=False)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
    algorithm = hashes.SHA256() if isinstance(key, ec.EllipticCurvePrivateKey) else None
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.PEM)


def test_what_the_request_says_of_itself_is_ignored(world):
    csr = csr_with(MLDSA65PrivateKey.generate(), name="qstack://metro/bob/operator")
    certificate = x509.load_pem_x509_certificate(issue(world.ca, csr, ALICE))
    assert identity_of(certificate) == ALICE
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_a_request_that_proves_nothing_is_refused(world):
    good = csr_with(MLDSA65PrivateKey.generate())
    csr = x509.load_pem_x509_csr(good)
    der = bytearray(csr.public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    forged = x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM)
    for pem, words in (
        (forged, "not signed by the key"),
        (b"nonsense", "not a certificate request"),
        (csr_with(ec.generate_private_key(ec.SECP256R1())), "not for an ML-DSA-65 key"),
    ):
        with pytest.raises(CredentialsError, match=words):
            issue(world.ca, pem, ALICE)


def test_an_authority_issues_for_its_own_network_only(world, tmp_path):
    csr = request(tmp_path / "host", ALICE)
    with pytest.raises(CredentialsError, match="not the authority of network 'other'"):
        issue(world.ca, csr, Identity("other", "alice", "node"))


def test_nothing_is_overwritten(tmp_path):
    create_authority(tmp_path / "ca", "metro")
    with pytest.raises(CredentialsError, match=r"a private key in .*root\.key already"):
        create_authority(tmp_path / "ca", "metro")
    request(tmp_path / "host", ALICE)
    with pytest.raises(CredentialsError, match=r"alice\.node\.key already"):
        request(tmp_path / "host", ALICE)


def test_a_folder_open_to_others_gets_no_key(tmp_path):
    (tmp_path / "open").mkdir(mode=0o755)
    with pytest.raises(CredentialsError, match="chmod 700"):
        request(tmp_path / "open", ALICE)
    assert not list((tmp_path / "open").iterdir())


def test_good_credentials_know_their_identity(tmp_path):
    world = World(tmp_path)
    certificate, key = world.files(ALICE)
    (certificate.parent / "root.pem").write_bytes(world.root.read_bytes())
    credentials = Credentials.in_folder(certificate.parent, ALICE)
    assert credentials.identity == ALICE
    assert credentials.key_file == key


def test_unusable_credentials_say_what_where_and_what_to_do(world, abroad):
    certificate, key = world.files(ALICE)
    missing = certificate.with_name("missing.pem")
    for files, words in (
        ((missing, key, world.root), r"cannot read .*missing\.pem: No such file"),
        ((certificate, missing, world.root), r"cannot read .*missing\.pem"),
        ((key, key, world.root), r"alice\.node\.key is not a certificate"),
        ((certificate, certificate, world.root), r"alice\.node\.pem is not a private key"),
        ((certificate, key, abroad.root), "was not issued by the authority"),
        ((world.files(ALICE, **PAST)[0], key, world.root), "expired on .*issue a new one"),
        ((world.files(ALICE, **FUTURE)[0], key, world.root), "not valid before.*clock"),
        ((world.root, key, world.root), "names nobody"),
    ):
        with pytest.raises(CredentialsError, match=words):
            Credentials(*files)


def test_a_key_others_may_read_is_refused(world):
    certificate, key = world.files(ALICE)
    key.chmod(0o640)
    with pytest.raises(CredentialsError, match=r"mode 0640.*chmod 600"):
        Credentials(certificate, key, world.root)


def test_a_key_of_another_certificate_is_refused(world):
    (certificate, _), (_, key) = world.files(ALICE), world.files(BOB)
    with pytest.raises(CredentialsError, match="is not the key of"):
        make_context(Credentials(certificate, key, world.root), server=False)


def test_no_text_holds_key_material(world, tmp_path):
    certificate, key = world.files(ALICE)
    secret = key.read_text().splitlines()[1]
    texts = [repr(Credentials(certificate, key, world.root))]
    texts.append(repr(make_context(Credentials(certificate, key, world.root), server=True)))
    broken = tmp_path / "broken.key"
    broken.write_text(key.read_text().replace(secret, secret[:-4]))
    broken.chmod(0o600)
    with pytest.raises(CredentialsError) as caught:
        make_context(Credentials(certificate, broken, world.root), server=True)
    texts.append(f"{caught.value!r} {caught.value.__cause__!r}")
    assert not any(secret[:12] in text for text in texts)
