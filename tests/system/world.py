"""What a scenario is written with: a booted Debian, peers in another network namespace, and patience.

A `Box` is a Debian with a real systemd; `box` beside this file boots it. Everything here waits by
looking again until a deadline, never by sleeping for as long as it probably takes.
"""

import json
import os
import pathlib
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).parent
V4, V6 = "10.77.0.1", "fd77::1"
BOTH = (V4, V6)
CONFIG = "/etc/echod/echod.toml"

REGISTRY = []


class Failed(Exception):
    """The reason why a scenario does not hold."""


def scenario(*, suites=("trixie",), installed=True, durable=False):
    """Registers a function as a scenario, under its own name.

    installed: the package is there already, and nothing is enabled.
    durable:   the machine's disk survives a reboot.
    """

    def register(function):
        function.suites, function.installed, function.durable = suites, installed, durable
        REGISTRY.append(function)
        return function

    return register


EVERYWHERE = ("trixie", "bookworm")


def expect(holds, otherwise):
    if not holds:
        raise Failed(otherwise)


def expect_in(what, text):
    expect(what in text, f"no {what!r} in: {text.strip()[-600:]!r}")


def eventually(look, otherwise, seconds=20):
    """What `look` answers once that is something; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise Failed(f"{otherwise() if callable(otherwise) else otherwise} (waited {seconds} s)")
        time.sleep(0.05)


def all_served(tally, count=None):
    """Every conversation of a tally was served with the same bytes."""
    failures = {key: tally[key] for key in ("refused", "broken", "late", "wrong") if tally[key]}
    expect(not failures, f"{failures} beside {tally['served']} served: {tally.get('errors')}")
    expect(count is None or tally["served"] == count, f"{tally['served']} of {count} were served")
    return tally


class Box:
    """One booted machine."""

    def __init__(self, directory, suite, debs):
        self.directory, self.suite, self.debs = str(directory), suite, debs
        self.peers = []

    # The machine.

    def tool(self, verb, *arguments, **options):
        return subprocess.run([HERE / "box", verb, self.directory, *arguments], **options)

    def boot(self, volatile):
        told = self.tool("boot", env=dict(os.environ, BOX_VOLATILE="1" if volatile else ""), capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if told.returncode != 0:
            raise Failed(f"the box does not boot: {told.stderr.strip()[-500:]}")

    def stop(self):
        for peers in self.peers:
            peers.end()
        self.peers.clear()
        self.tool("stop", stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)

    def reboot(self):
        boot_id = "/proc/sys/kernel/random/boot_id"
        before = self.out("cat", boot_id)
        self.try_("systemctl", "--no-block", "reboot")
        eventually(lambda: self.try_("cat", boot_id).stdout not in ("", before), "the box does not reboot", 90)
        self.boot(volatile=False)

    # Commands inside.

    def try_(self, *command, seconds=120, stdin=""):
        """Runs a command as root inside, and answers what came of it."""
        return self.tool("exec", "--", *command, input=stdin, capture_output=True, text=True, timeout=seconds)

    def out(self, *command, **options):
        """Runs a command that has to succeed; answers what it printed."""
        told = self.try_(*command, **options)
        expect(
            told.returncode == 0,
            f"{' '.join(command)!r} exits with {told.returncode}: {(told.stderr + told.stdout).strip()[-600:]}",
        )
        return told.stdout

    def sh(self, script, **options):
        return self.out("sh", "-ec", script, **options)

    def systemctl(self, *arguments):
        return self.out("systemctl", *arguments)

    def show(self, unit, name):
        return self.out("systemctl", "show", "--value", "-p", name, unit).strip()

    def state(self, unit):
        return self.show(unit, "ActiveState")

    def main_pid(self):
        return int(self.show("echod.service", "MainPID"))

    # Files inside.

    def read(self, path):
        return self.out("cat", path)

    def write(self, path, text):
        self.sh(f"mkdir -p '{path.rpartition('/')[0]}'; cat >'{path}'", stdin=text)

    def exists(self, path):
        return self.try_("test", "-e", path).returncode == 0

    def copy(self, source, target):
        self.tool("copy", str(source), target, check=True, stdin=subprocess.DEVNULL)

    def edit_config(self, old, new):
        """Replaces a text of the configuration, as an editor does."""
        text = self.read(CONFIG)
        expect(old in text, f"{CONFIG} has no {old!r} to replace")
        self.write(CONFIG, text.replace(old, new, 1))

    def drop_in(self, unit, text):
        self.write(f"/etc/systemd/system/{unit}.d/50-test.conf", text)
        self.systemctl("daemon-reload")

    # The package.

    def install(self, deb):
        """As an operator does."""
        self.copy(deb, "/root/" + deb.name)
        self.sh(f"cd /root; apt install -y ./{deb.name}")

    # The journal.

    def journal(self, *arguments):
        """The service's entries of this boot, each a dictionary."""
        lines = self.out("journalctl", "-b", "-u", "echod", "-o", "json", "--all", *arguments).splitlines()
        return [json.loads(line) for line in lines]

    def messages(self):
        return [entry["MESSAGE"] for entry in self.journal() if isinstance(entry.get("MESSAGE"), str)]

    def awaits(self, *parts, seconds=20):
        """Waits for a message that has all these parts; answers it."""

        def look():
            return next((m for m in self.messages() if all(part in m for part in parts)), None)

        return eventually(look, lambda: f"no message with {parts} in the journal: {self.messages()[-8:]}", seconds)

    # Peers outside.

    def load(self, verb, count, hosts=BOTH, port=8080):
        return Peers(self, verb, count, hosts, port)

    def once(self, host=V4, port=8080, count=1000):
        """One conversation; answers how many seconds it took."""
        with self.load("once", count, [host], port) as peers:
            return all_served(peers.told(), 1)["slowest"]

    def seen_by_client(self, *command):
        """What a command prints in the peers' network namespace."""
        return self.tool("client", "--", *command, capture_output=True, text=True).stdout

    def echoes(self):
        for host in BOTH:
            self.once(host)


class Peers:
    """A running load.py."""

    def __init__(self, box, verb, count, hosts, port):
        self.process = subprocess.Popen(
            [HERE / "box", "client", box.directory, "--", sys.executable, str(HERE / "load.py"), verb, str(port), str(count), *hosts],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        box.peers.append(self)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()

    def told(self):
        """Its next line, which may take a while, but not for ever."""
        patience = threading.Timer(120, self.process.kill)
        patience.start()
        line = self.process.stdout.readline()
        patience.cancel()
        if not line:
            raise Failed(f"the peers ended: {self.process.stderr.read().strip()[-600:]}")
        return json.loads(line)

    def ask(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.told()

    def finish(self):
        """Ends a storm, and answers its last line."""
        self.process.stdin.close()
        return self.told()

    def end(self):
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            try:
                pipe.close()
            except OSError:
                pass
