"""Hosts for the nodes of one network: each sees its own folder, the others over the network only.

`LoopbackHosts` are addresses 127.0.0.2 and up with folders of their own. `NamespaceHosts` are user,
mount and network namespaces, joined by virtual Ethernet to a switch that is a namespace, too; a
host sees no folder but its own. Whether the kernel lets us make those is found out by making one.
"""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Protocol

from tests.runtime.running import command, wait_for

NAMESPACES = ("-U", "-n", "-m")


class Hosts(Protocol):
    """Where processes can be started: `here` is the folder a host's processes have, by its name."""

    names: list[str]

    def address(self, host: str) -> str:
        """Where the others reach it."""
        ...

    def outside(self, host: str) -> Path:
        """The host's folder as this test sees it."""
        ...

    def inside(self, host: str) -> Path:
        """The same as the host's own processes see it."""
        ...

    def on(self, host: str, *arguments: str) -> list[str]:
        """The command line that runs `arguments` on the host."""
        ...


class LoopbackHosts:
    """127.0.0.2, 127.0.0.3, ..."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        self.names = names
        self._folder = folder
        for name in names:
            self.outside(name).mkdir(mode=0o700)

    def address(self, host: str) -> str:
        """See `Hosts`."""
        return f"127.0.0.{self.names.index(host) + 2}"

    def outside(self, host: str) -> Path:
        """See `Hosts`."""
        return self._folder / host

    def inside(self, host: str) -> Path:
        """See `Hosts`."""
        return self.outside(host)

    def on(self, host: str, *arguments: str) -> list[str]:
        """See `Hosts`."""
        return list(arguments)


class NamespaceHosts:
    """10.77.0.1, 10.77.0.2, ... on a switch. Use as a context; `OSError` if it cannot be had."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        self.names = names
        self._folder = folder
        self._holders: dict[str, subprocess.Popen[bytes]] = {}
        self._exit = ExitStack()

    def __enter__(self) -> "NamespaceHosts":
        """Make the switch and the hosts."""
        with ExitStack() as undo:
            undo.push(self)
            (self._folder / "hosts").mkdir(mode=0o700)
            (self._folder / "here").mkdir(mode=0o700)
            self._hold("switch", [])
            self._do("switch", "ip link add lan type bridge && ip link set lan up")
            for number, name in enumerate(self.names, start=1):
                self.outside(name).mkdir(mode=0o700)
                self._hold(name, self._enter("switch"))
                self._plug_in(name, number)
            undo.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the namespaces: their last process goes."""
        for holder in self._holders.values():
            holder.kill()
            holder.wait()

    def address(self, host: str) -> str:
        """See `Hosts`."""
        return f"10.77.0.{self.names.index(host) + 1}"

    def outside(self, host: str) -> Path:
        """See `Hosts`."""
        return self._folder / "hosts" / host

    def inside(self, host: str) -> Path:
        """See `Hosts`."""
        del host
        return self._folder / "here"

    def on(self, host: str, *arguments: str) -> list[str]:
        """See `Hosts`."""
        return [*self._enter(host), *arguments]

    def shape(self, host: str, rule: str) -> None:
        """`tc qdisc` RULE at the host's network card. Raises `OSError` where that is not had."""
        self._do(host, f"tc qdisc replace dev net0 root {rule}")

    def plug(self, host: str, *, is_in: bool) -> None:
        """Pull the network cable, or put it back."""
        self._do("switch", f"ip link set {self._port(host)} {'up' if is_in else 'down'}")

    def _port(self, host: str) -> str:
        return f"port{self.names.index(host) + 1}"

    def _plug_in(self, name: str, number: int) -> None:
        pid, port = self._holders[name].pid, self._port(name)
        self._do("switch", f"ip link add {port} type veth peer name net0 netns {pid}")
        self._do("switch", f"ip link set {port} master lan up")
        self._do(name, f"ip addr add 10.77.0.{number}/24 dev net0")
        self._do(name, "ip link set net0 up && ip link set lo up")
        here = self._folder / "here"
        self._do(name, f"mount --bind {self.outside(name)} {here}")
        self._do(name, f"mount -t tmpfs none {self._folder / 'hosts'}")

    def _hold(self, name: str, enter: list[str]) -> None:
        """A process that stands in new namespaces and says so."""
        hold = [*enter, "unshare", "-Urnm", "sh", "-c", "echo; exec sleep infinity"]
        holder = subprocess.Popen(hold, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._holders[name] = holder
        assert holder.stdout is not None
        assert holder.stderr is not None
        if not holder.stdout.readline():
            raise OSError(f"no namespaces: {holder.stderr.read().decode().strip()}")
        holder.stdout.close()
        holder.stderr.close()

    def _enter(self, name: str) -> list[str]:
        target = ["-t", str(self._holders[name].pid)]
        return ["nsenter", *target, *NAMESPACES, "--preserve-credentials"]

    def _do(self, name: str, script: str) -> None:
        line = [*self._enter(name), "sh", "-c", script]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise OSError(f"{script}: {(done.stderr or done.stdout).strip()}")


def why_no_namespaces() -> str:
    """Why hosts cannot be namespaces here, found out by making one; empty if they can."""
    missing = [tool for tool in ("unshare", "nsenter", "ip", "mount") if not shutil.which(tool)]
    if missing:
        return f"not installed: {', '.join(missing)}"
    with tempfile.TemporaryDirectory(prefix="qs-") as folder:
        try:
            with NamespaceHosts(Path(folder), ["probe"]):
                return ""
        except OSError as error:
            return str(error)


def why_no_shaping() -> str:
    """Why `tc netem` cannot be had here; empty if it can."""
    why = why_no_namespaces() or ("" if shutil.which("tc") else "not installed: tc")
    if why:
        return why
    with tempfile.TemporaryDirectory(prefix="qs-") as folder:
        try:
            with NamespaceHosts(Path(folder), ["probe"]) as hosts:
                hosts.shape("probe", "netem delay 1ms")
                return ""
        except OSError as error:
            return str(error)


class HostProcesses:
    """The processes of a network on its hosts, each with the folder of its host."""

    def __init__(self, hosts: Hosts) -> None:
        self.hosts = hosts
        self.logs: dict[str, Path] = {}
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def qstack(self, host: str, *arguments: str, said: bytes = b"") -> bytes:
        """The output of a command on a host, which must do what it is asked."""
        done = subprocess.run(
            self.hosts.on(host, *command(*arguments)),
            env=self._environment(host),
            input=said,
            capture_output=True,
            check=False,
            timeout=60,
        )
        logs = "\n".join(f"{name}: {log.read_text()}" for name, log in self.logs.items())
        assert done.returncode == 0, f"{host}: {done.stderr.decode()}\n{logs}"
        return done.stdout

    def start(self, host: str, *arguments: str) -> None:
        """Start the host's daemon."""
        self.logs[host] = self.hosts.outside(host) / "log"
        with self.logs[host].open("ab") as log:
            line = self.hosts.on(host, *command(*arguments))
            self._running[host] = subprocess.Popen(line, env=self._environment(host), stderr=log)

    def kill(self, host: str) -> None:
        """SIGKILL to the host's daemon, without a word."""
        self._running[host].kill()
        self._running[host].wait()

    def stop(self) -> dict[str, int]:
        """Ctrl-C to all; the exit status of each."""
        for process in self._running.values():
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        return {host: process.wait(10) for host, process in self._running.items()}

    def wait_for_log(self, host: str, words: str) -> None:
        """Wait until the host's daemon has said something."""
        wait_for(f"{host} says {words!r}", lambda: words in self.logs[host].read_text(), 30.0)

    def _environment(self, host: str) -> dict[str, str]:
        return {**os.environ, "QSTACK_RUN": str(self.hosts.inside(host))}


@contextmanager
def ended_at_last(processes: HostProcesses) -> Iterator[HostProcesses]:
    """The processes are gone afterwards, whatever happens."""
    try:
        yield processes
    finally:
        for process in processes._running.values():
            process.kill()
            process.wait()
