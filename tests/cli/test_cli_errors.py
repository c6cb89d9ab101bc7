"""What a stranger sees when something is wrong: one line to act on, status 1, no traceback."""

import contextlib
import io
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

import pytest

from qstack.channel.ca import create_authority, file_stem, issue, request
from qstack.channel.identity import Identity
from qstack.cli.main import main
from tests.runtime.running import command, environment, packaged, run_folder, start, variant

DAY = timedelta(days=1)
ALICE = Identity("pair", "alice", "node")


@pytest.fixture
def runs() -> Iterator[Path]:
    with run_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "ca"
    create_authority(folder, "pair")
    return folder


def qstack(runs: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        env=environment(runs),
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )


def error_of(runs: Path, *arguments: str) -> str:
    """The error of a command that must fail as known errors do; in this process, to be quick."""
    said = io.StringIO()
    with (
        mock.patch.dict(os.environ, environment(runs)),
        mock.patch.object(sys, "argv", ["qstack", *arguments]),
        contextlib.redirect_stderr(said),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    assert ended.value.code == 1
    assert said.getvalue().strip()
    return said.getvalue()


def credentials(
    folder: Path,
    authority: Path,
    identity: Identity,
    dates: tuple[datetime, datetime] | None = None,
    stem: str = "",
) -> Path:
    """A folder with root, key and certificate of an identity."""
    folder.mkdir(mode=0o700)
    (folder / "root.pem").write_bytes((authority / "root.pem").read_bytes())
    not_before, not_after = dates or (None, None)
    certificate = issue(
        authority,
        request(folder, identity),
        identity,
        not_before=not_before,
        not_after=not_after,
    )
    (folder / f"{file_stem(identity)}.pem").write_bytes(certificate)
    if stem:
        for ending in ("pem", "key"):
            (folder / f"{file_stem(identity)}.{ending}").rename(folder / f"{stem}.{ending}")
    return folder


def node_error(runs: Path, folder: Path, name: str = "alice") -> str:
    source = str(packaged("pair"))
    options = ("--name", name, "--credentials", str(folder))
    return error_of(runs, "node", "run", source, *options)


def test_a_port_in_use_is_named(runs: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        change = (
            'name = "alice"\naddress = "127.0.0.1:0"',
            f'name = "alice"\naddress = "{{}}:{port}"',
        )
        source = variant(tmp_path, "pair", (change[0], change[1].format("127.0.0.1")))
        said = error_of(runs, "up", str(source), "--quiet")
    assert f"127.0.0.1:{port} is in use" in said
    assert list(runs.iterdir()) == []


def test_an_unknown_node_is_answered_with_those_there_are(runs: Path) -> None:
    said = error_of(runs, "node", "run", str(packaged("pair")), "--name", "carol")
    assert "no node 'carol'; it has alice, bob" in said


def test_a_node_of_its_own_needs_addresses_that_others_know(runs: Path, authority: Path) -> None:
    folder = credentials(runs / "good", authority, ALICE)
    said = node_error(runs, folder)
    assert "node bob: address: 127.0.0.1:0 has no port that others know" in said
    assert "fabric: address" in said


def test_missing_credentials_are_named(runs: Path) -> None:
    said = error_of(runs, "node", "run", str(packaged("pair")), "--name", "alice")
    assert "alice.node.pem" in said
    assert "qstack ca" in said


def test_an_expired_certificate_is_said_to_be_so(
    runs: Path, authority: Path, tmp_path: Path
) -> None:
    now = datetime.now(UTC)
    folder = credentials(tmp_path / "old", authority, ALICE, dates=(now - 2 * DAY, now - DAY))
    assert "expired on" in node_error(runs, folder)


def test_a_certificate_of_another_authority_is_refused(
    runs: Path, authority: Path, tmp_path: Path
) -> None:
    foreign = tmp_path / "foreign-ca"
    create_authority(foreign, "pair")
    folder = credentials(tmp_path / "mixed", foreign, ALICE)
    (folder / "root.pem").write_bytes((authority / "root.pem").read_bytes())
    assert "was not issued by the authority" in node_error(runs, folder)


@pytest.mark.parametrize("role", ["link", "fabric"])
def test_a_certificate_for_another_role_is_refused(
    runs: Path, authority: Path, tmp_path: Path, role: str
) -> None:
    other = Identity("pair", "alice", role)
    folder = credentials(tmp_path / "role", authority, other, stem="alice.node")
    said = node_error(runs, folder)
    assert other.uri in said
    assert ALICE.uri in said


def test_a_key_open_to_others_is_refused(runs: Path, authority: Path, tmp_path: Path) -> None:
    folder = credentials(tmp_path / "open", authority, ALICE)
    (folder / "alice.node.key").chmod(0o644)
    assert "chmod 600" in node_error(runs, folder)


def test_a_missing_network_file_is_named_with_the_packaged_ones(runs: Path) -> None:
    said = error_of(runs, "up", "nowhere.toml")
    assert "nowhere.toml" in said


def test_all_that_is_wrong_with_a_network_file_is_said_at_once(runs: Path, tmp_path: Path) -> None:
    source = variant(
        tmp_path,
        "pair",
        ("memory = 4", "memory = -4"),
        ('clock = "lockstep"', 'clock = "sundial"'),
        ("length_m = 10_000", 'length_m = "far"'),
    )
    said = error_of(runs, "up", str(source))
    for word in ("memory", "clock", "length_m"):
        assert word in said


def test_a_network_is_up_once(runs: Path) -> None:
    running = start(runs, packaged("pair"), "pair")
    try:
        said = error_of(runs, "up", str(packaged("pair")), "--quiet")
        assert "is up already" in said
        assert str(running.process.pid) in said
        assert len(list(running.folder.glob("*.sock"))) == 3
    finally:
        assert running.stop() == 0


def test_a_run_folder_open_to_others_is_refused(runs: Path) -> None:
    runs.chmod(0o755)
    said = error_of(runs, "up", str(packaged("pair")))
    assert "chmod 700" in said


def test_a_run_folder_that_is_a_file_is_refused(runs: Path) -> None:
    (runs / "file").write_text("")
    assert "QSTACK_RUN" in error_of(runs / "file", "up", str(packaged("pair")))


def test_a_socket_path_that_is_too_long_is_said_before_anything_runs(runs: Path) -> None:
    long = runs / ("x" * 100)
    said = error_of(long, "up", str(packaged("pair")))
    assert "more than 100 bytes" in said
    assert list(long.iterdir()) == []


def test_status_says_that_nothing_is_up(runs: Path) -> None:
    assert "no network is up here" in error_of(runs, "status")
    assert qstack(runs, "status", "--json").stdout == '{"networks": []}\n'


@pytest.mark.parametrize("command_", ["hold", "release"])
def test_the_clock_of_nothing_cannot_be_held(runs: Path, command_: str) -> None:
    assert "no network is up" in error_of(runs, "fabric", command_)


def test_a_stale_socket_is_no_network(runs: Path) -> None:
    (runs / "pair").mkdir(mode=0o700)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(runs / "pair" / "fabric.sock"))
    listener.close()
    assert "is the network up?" in error_of(runs, "fabric", "release")


def test_an_authority_for_an_impossible_name_is_refused(runs: Path) -> None:
    said = error_of(runs, "ca", "init", str(runs / "ca"), "--network", "Not A Name")
    assert "'Not A Name'" in said


def test_a_request_that_is_none_is_refused(runs: Path, authority: Path, tmp_path: Path) -> None:
    (tmp_path / "csr").write_text("not a request")
    options = ("--network", "pair", "--node", "alice")
    said = error_of(runs, "ca", "issue", str(authority), str(tmp_path / "csr"), *options)
    assert "request" in said


def test_python_without_assertions_is_refused(runs: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-O", "-m", "qstack", "status"],
        env=environment(runs),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "qstack: its assertions must be on; run Python without -O\n"


def test_wrong_usage_is_status_2(runs: Path) -> None:
    done = qstack(runs, "up")
    assert done.returncode == 2
    assert "NETWORK" in done.stderr


def test_node_and_fabric_with_unlike_files_both_say_both_hashes(
    runs: Path, authority: Path, tmp_path: Path
) -> None:
    with ExitStack() as probes:
        free = [probes.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
        ports = [probe.getsockname()[1] for probe in free]
    tables = ("[fabric]", 'name = "alice"', 'name = "bob"')
    addresses = [
        (f'{table}\naddress = "127.0.0.1:0"', f'{table}\naddress = "127.0.0.1:{port}"')
        for table, port in zip(tables, ports, strict=True)
    ]
    (tmp_path / "other").mkdir()
    ours = variant(tmp_path, "pair", *addresses)
    shorter = ("length_m = 10_000", "length_m = 9_000")
    theirs = variant(tmp_path / "other", "pair", *addresses, shorter)
    fabric = credentials(tmp_path / "fabric", authority, Identity("pair", "fabric", "fabric"))
    alice = credentials(tmp_path / "alice", authority, ALICE)
    commands = [
        ("fabric", "run", str(ours), "--credentials", str(fabric)),
        ("node", "run", str(theirs), "--name", "alice", "--credentials", str(alice)),
    ]
    processes = [
        subprocess.Popen(
            command(*arguments), env=environment(runs), stderr=subprocess.PIPE, text=True
        )
        for arguments in commands
    ]
    try:
        said = []
        for process in processes:
            assert process.stderr is not None
            said.append(next(line for line in process.stderr if "read network file" in line))
    finally:
        for process in processes:
            os.kill(process.pid, signal.SIGINT)
            assert process.wait(10) == 0
            assert process.stderr is not None
            process.stderr.close()
    hashes = [word.strip(",;.\"'}") for word in said[0].split() if len(word.strip(",;")) == 16]
    assert len(hashes) == 2
    assert all(digest in said[1] for digest in hashes)


def test_a_pre_shared_secret_is_made_once_for_two_nodes(runs, tmp_path):
    words = ("ca", "secret", str(tmp_path), "--network", "pair", "--between", "alice")
    done = qstack(runs, *words, "bob")
    assert done.returncode == 0, done.stderr
    files = [tmp_path / "alice.bob.secret", tmp_path / "bob.alice.secret"]
    assert done.stdout == f"for alice: {files[0]}\nfor bob: {files[1]}\n"
    assert [path.stat().st_mode & 0o777 for path in files] == [0o600, 0o600]
    assert "already" in error_of(runs, *words, "bob")
    assert "two different nodes" in error_of(runs, *words, "alice")
    assert "is not possible" in error_of(runs, *words, "Bob")


def test_a_network_that_is_up_has_a_secret_for_every_two_nodes(runs):
    running = start(runs, packaged("pair"), "pair")
    try:
        secrets = sorted(path.name for path in (running.folder / "identities").glob("*.secret"))
    finally:
        running.stop()
    assert secrets == ["alice.bob.secret", "bob.alice.secret"]
    assert not running.folder.exists()
