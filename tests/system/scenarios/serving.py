"""The socket unit, the service, and peers from another host."""

import re

from world import BOTH, CONFIG, EVERYWHERE, HERE, V4, V6, all_served, eventually, expect, scenario


@scenario(suites=EVERYWHERE)
def first_connection_starts_the_service(box):
    box.systemctl("start", "echod.socket")
    expect(box.state("echod.service") == "inactive", "the service runs before anybody came")
    box.once(V4)
    expect(box.state("echod.service") == "active", "the service does not run after a connection")


@scenario(suites=EVERYWHERE)
def echo_over_ipv4_and_ipv6(box):
    box.systemctl("start", "echod.socket")
    for host in BOTH:
        for count in (1, 1000, 4_000_000):
            box.once(host, count=count)
    messages = [m for m in box.messages() if "connection ended" in m]
    expect(any("peer=10.77.0.2:" in m for m in messages), f"no IPv4 peer in canonical form: {messages}")
    expect(any("peer=[fd77::2]:" in m for m in messages), f"no IPv6 peer: {messages}")


@scenario()
def two_thousand_peers_at_the_first_activation(box):
    box.systemctl("start", "echod.socket")
    with box.load("crowd", 2000) as crowd:
        all_served(crowd.told(), 2000)
    expect(box.state("echod.socket") == "active", "the socket did not survive the crowd")
    expect(box.show("echod.service", "NRestarts") == "0", "the service was restarted")


@scenario()
def crowds_at_ten_activations(box):
    """Whoever waits while the daemon starts is served by it, whichever of its threads is up first."""
    box.systemctl("start", "echod.socket")
    for number in range(1, 11):
        with box.load("crowd", 500) as crowd:
            tally = crowd.told()
        expect(tally["served"] == 500, f"at activation {number}: {tally}")
        box.systemctl("stop", "echod.service")


@scenario(suites=EVERYWHERE)
def restart_with_a_hundred_idle_peers(box):
    box.systemctl("start", "echod.socket")
    with box.load("hold", 100) as idle:
        idle.told()
        all_served(idle.ask(), 100)
        box.systemctl("--no-block", "restart", "echod.service")
        old = box.main_pid()
        seconds = box.once(V6)
        expect(seconds < 4, f"a new peer waited {seconds} s")
        eventually(lambda: box.main_pid() not in (0, old), "the service was not restarted")
        tally = idle.ask()
        expect(tally["broken"] == 100, f"idle peers were not ended: {tally}")
    cut = [m for m in box.messages() if "connections were cut" in m]
    expect(not cut, f"the restart did not end in peace: {cut}")


@scenario()
def stopping_for_good_needs_the_socket_too(box):
    box.systemctl("enable", "--now", "echod.socket")
    box.once()
    box.systemctl("disable", "--now", "echod.socket", "echod.service")
    for unit in ("echod.socket", "echod.service"):
        expect(box.state(unit) == "inactive", f"{unit} is {box.state(unit)}")
        expect(box.try_("systemctl", "is-enabled", unit).stdout.strip() == "disabled", f"{unit} is enabled")
    with box.load("once", 10, [V4]) as peer:
        expect(peer.told()["refused"] == 1, "somebody still listens")


@scenario()
def access_rules_of_the_socket_unit_bite(box):
    box.drop_in("echod.socket", "[Socket]\nIPAddressDeny=any\nIPAddressAllow=fd77::/64\n")
    box.systemctl("start", "echod.socket")
    box.once(V6)
    with box.load("once", 10, [V4]) as peer:
        eventually(lambda: "10.77.0.1:8080" in box.seen_by_client("ss", "-tnH", "state", "syn-sent"), "nobody knocks")
        peer.end()
    records = [m for m in box.messages() if re.search(r"peer=10\.77\.0\.2", m)]
    expect(not records, f"a peer that was denied came in: {records}")


@scenario()
def second_socket_as_its_example_says(box):
    """The steps of second.socket's comment, with the first socket's peers coming all the while."""
    example = "/usr/share/doc/echod/examples/second.socket"
    text = box.read(example)
    box.systemctl("enable", "--now", "echod.socket")
    listener = re.search(r"^#\s+(\[\[listener\]\]\n(?:#\s+\w+ = .*\n)+)", text, re.M)
    expect(listener, f"{example} shows no listener")
    steps = re.search(r"^#   2\. .*?(?=^#$)", text, re.M | re.S)
    expect(steps, f"{example} shows no steps")
    commands = [re.sub(r"^#   (\d\.|  ) ", "", line) for line in steps[0].splitlines()]
    with box.load("storm", 50) as storm:
        storm.told()
        box.write(CONFIG, box.read(CONFIG) + "\n" + re.sub(r"^#\s+", "", listener[1], flags=re.M))
        for command in commands:
            box.sh(command)
        all_served(storm.finish())
    box.once(V4, port=7000)
    box.once(V6, port=7000)
    box.echoes()
    told = [m for m in box.messages() if "no listener claims" in m]
    expect(not told, f"in between, a socket was nobody's: {told}")
    box.sh("apt-get remove -y echod")
    state = box.state("echod-second.socket")
    expect(state != "active", "after the removal the second socket could start what is gone")


@scenario(suites=EVERYWHERE)
def another_port_as_readme_says(box):
    """A drop-in for the socket unit, and a restart of it alone: the service that runs goes with it."""
    box.systemctl("enable", "--now", "echod.socket")
    box.once(V4)
    box.drop_in("echod.socket", "[Socket]\nListenStream=\nListenStream=7000\n")
    box.systemctl("restart", "echod.socket")
    box.once(V4, port=7000)
    box.once(V6, port=7000)
    told = [m for m in box.messages() if "another address" in m]
    expect(told, "nobody is told that the file says another port")


@scenario(suites=EVERYWHERE)
def the_packages_own_smoke_test(box):
    box.copy(HERE.parent.parent / "packaging/debian/tests/smoke", "/root/")
    box.sh("sh /root/smoke")
