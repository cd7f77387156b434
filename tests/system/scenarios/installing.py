"""The package's life: installed, upgraded, removed, purged; and the manual's words taken at theirs."""

import re

from world import CONFIG, EVERYWHERE, HERE, V4, eventually, expect, scenario

README = HERE.parent.parent / "README.md"
UNITS = ("echod.socket", "echod.service")
# What a machine writes by itself while it runs.
RESTLESS = "/proc /sys /dev /run /tmp /root /var/tmp /var/log /var/cache /var/lib/apt /var/lib/dpkg /var/lib/systemd /var/backups"


def readme_says(part):
    """The one command of README.md that has this part."""
    commands = re.findall(r"^    (?:sudo )?(\S.*)$", README.read_text(), re.M)
    found = [command for command in commands if part in command]
    expect(len(found) == 1, f"README.md has {len(found)} commands with {part!r}")
    return found[0]


def install_as_readme_says(box):
    box.copy(box.debs.present, "/root/")
    box.sh(f"cd /root; {readme_says('apt install')}")
    for unit in UNITS:
        expect(box.state(unit) == "inactive", f"the installation started {unit}")
        enabled = box.try_("systemctl", "is-enabled", unit).stdout.strip()
        expect(enabled == "disabled", f"the installation leaves {unit} {enabled}")


def records_are_shown(box):
    shown = box.out("journalctl", "-u", "echod", "--no-pager")
    expect("connection ended peer=10.77.0.2" in shown, f"journalctl -u echod shows no record: {shown[-500:]}")


@scenario(suites=EVERYWHERE, installed=False)
def install_as_written_by_socket(box):
    install_as_readme_says(box)
    box.sh(readme_says("echod check"))
    box.sh(readme_says("enable --now echod.socket"))
    box.echoes()
    records_are_shown(box)


@scenario(installed=False)
def install_as_written_by_service(box):
    install_as_readme_says(box)
    box.systemctl("enable", "--now", "echod.service")
    for unit in UNITS:
        expect(box.state(unit) == "active", f"{unit} is {box.state(unit)}")
    box.echoes()
    records_are_shown(box)


@scenario(durable=True)
def enabled_socket_survives_a_reboot(box):
    box.systemctl("enable", "--now", "echod.socket")
    box.once()
    box.reboot()
    expect(box.state("echod.socket") == "active", "the socket is not there after a reboot")
    expect(box.state("echod.service") == "inactive", "the service runs before anybody came")
    box.echoes()


@scenario(durable=True)
def enabled_service_survives_a_reboot(box):
    box.systemctl("enable", "--now", "echod.service")
    box.once()
    box.reboot()
    for unit in UNITS:
        expect(box.state(unit) == "active", f"{unit} is {box.state(unit)} after a reboot")
    box.echoes()


@scenario(suites=EVERYWHERE)
def upgrade_under_five_hundred_connecting_peers(box):
    box.systemctl("enable", "--now", "echod.socket")
    socket = box.show("echod.socket", "InvocationID")
    box.copy(box.debs.next, "/root/next.deb")
    with box.load("storm", 500) as storm:
        before = storm.told()["served"]
        pid = box.main_pid()
        box.sh("apt install -y /root/next.deb", seconds=200)
        expect(box.main_pid() not in (0, pid), "the upgrade did not restart the service")
        expect(box.show("echod.socket", "InvocationID") == socket, "the upgrade touched the socket")
        after = storm.ask()["served"]
        eventually(lambda: storm.ask()["served"] > after, "nobody is served after the upgrade", 60)
        tally = storm.finish()
    expect(tally["served"] > before, f"nobody was served: {tally}")
    for outcome in ("refused", "late", "wrong"):
        expect(tally[outcome] == 0, f"{outcome}: {tally}")
    expect(tally["broken"] == 0, f"conversations were cut by an orderly restart: {tally}")


@scenario()
def upgrade_starts_nothing_that_did_not_run(box):
    box.copy(box.debs.next, "/root/next.deb")
    box.sh("apt install -y /root/next.deb")
    for unit in UNITS:
        expect(box.state(unit) == "inactive", f"the upgrade started {unit}")
        expect(box.try_("systemctl", "is-enabled", unit).stdout.strip() == "disabled", f"the upgrade enabled {unit}")


@scenario(suites=EVERYWHERE)
def upgrade_keeps_an_edited_file(box):
    box.edit_config('#max_bytes = "off"', 'max_bytes = "1GiB"')
    mine = box.read(CONFIG)
    box.copy(box.debs.next, "/root/next.deb")
    box.sh("apt install -y /root/next.deb")
    expect(box.read(CONFIG) == mine, "an upgrade with the same configuration changed the edited file")
    box.copy(box.debs.next_with_other_config, "/root/other.deb")
    box.sh("apt install -y -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold /root/other.deb")
    expect(box.read(CONFIG) == mine, "an upgrade with another configuration changed the edited file")
    expect("Something new" in box.read(CONFIG + ".dpkg-dist"), "the new file is not beside the edited one")


@scenario()
def remove_stops_and_keeps_the_configuration(box):
    box.systemctl("enable", "--now", "echod.service")
    with box.load("hold", 5) as held:
        held.told()
        box.sh("apt remove -y echod")
    for unit in UNITS:
        expect(box.state(unit) == "inactive", f"{unit} is {box.state(unit)}")
    expect(box.exists(CONFIG), "remove took the configuration")
    with box.load("once", 10, [V4]) as peer:
        expect(peer.told()["refused"] == 1, "somebody still listens")
    box.install(box.debs.present)
    box.systemctl("start", "echod.socket")
    box.echoes()


def everything(box):
    """All names of the file system, with kind, mode and owner."""
    prune = " ".join(f"-path {place} -prune -o" for place in RESTLESS.split())
    return set(box.sh(f"find / {prune} -printf '%p %y %m %U:%G %l\\n'", seconds=60).splitlines())


@scenario(suites=EVERYWHERE, installed=False)
def purge_leaves_nothing(box):
    # Any package's installation leaves these: it asked for a user, or for the daemon's cache of links.
    users = r"/etc/(passwd|group|shadow|gshadow)-? |/etc/\.pwd\.lock |/etc/subu?g?id-? |/etc/ld\.so\.cache "
    state = "ls -1 /var/lib/systemd/deb-systemd-helper-* 2>/dev/null || true"
    before, state_before = everything(box), box.sh(state)
    box.install(box.debs.present)
    box.systemctl("enable", "--now", "echod.socket", "echod.service")
    box.echoes()
    box.drop_in("echod.service", "[Service]\nNice=1\n")
    box.sh("rm -r /etc/systemd/system/echod.service.d; systemctl daemon-reload")
    box.sh("apt purge -y echod")
    left = sorted(line for line in before ^ everything(box) if not re.match(users, line))
    expect(not left, f"purge leaves a difference: {left[:20]}")
    expect(box.sh(state) == state_before, f"purge leaves states of units: {box.sh(state)}")
    for place in ("/run/echod", "/var/lib/dpkg/info/echod.list"):
        expect(not box.exists(place), f"purge leaves {place}")
    expect("echod" not in box.out("systemctl", "list-units", "--all", "--no-pager", "--plain"), "units are left")
    told = box.out("systemctl", "--failed", "--no-legend", "--plain")
    expect("echod" not in told, f"failed units are left: {told}")
