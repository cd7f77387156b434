"""`systemctl reload echod`, with a good file, a bad one, and none."""

import re

from world import CONFIG, EVERYWHERE, V4, all_served, expect, expect_in, scenario

# What is refused: the key, and the line that it is on.
WRONG = "max_conections = 5"


def reload(box):
    return box.try_("systemctl", "reload", "echod.service")


def prepend(box, line):
    """Makes `line` the file's second line."""
    first, rest = box.read(CONFIG).split("\n", 1)
    box.write(CONFIG, f"{first}\n{line}\n{rest}")


@scenario(suites=EVERYWHERE)
def reload_of_a_good_file(box):
    box.systemctl("start", "echod.socket")
    with box.load("hold", 20) as held:
        held.told()
        # Whoever is connected may wait for a service that has yet to read its file.
        all_served(held.ask(), 20)
        pid = box.main_pid()
        box.edit_config('#max_bytes = "off"', 'max_bytes = "1KiB"')
        box.systemctl("reload", "echod.service")
        box.awaits("reload adopted", "changed=1")
        box.awaits("reload changed", 'max_bytes: "off" -> "1KiB": applied now')
        told = [message for message in box.messages() if "applied now" in message]
        expect(len(told) == 1, f"the journal was told twice: {told}")
        all_served(held.ask(), 20)
        with box.load("once", 100_000, [V4]) as peer:
            expect(peer.told()["served"] == 0, "the new bound has no effect")
        box.awaits("connection ended", "reason=quota")
        expect(box.main_pid() == pid, "the service was restarted")


@scenario(suites=EVERYWHERE)
def reload_of_a_bad_file(box):
    box.systemctl("start", "echod.socket")
    with box.load("hold", 20) as held:
        held.told()
        pid = box.main_pid()
        good = box.read(CONFIG)
        prepend(box, WRONG)
        told = reload(box)
        expect(told.returncode != 0, "systemctl reload succeeds")
        place = f"{CONFIG}:2:"
        message = box.awaits("reload refused", place, "max_conections")
        expect(re.search(r"max_connections", message), f"the remedy is missing: {message}")
        status = box.try_("systemctl", "status", "echod.service").stdout
        line = re.search(r"^ *Status: (.*)$", status, re.M)
        expect(line, f"no Status: line in {status}")
        for part in ("reload refused", place, "max_conections"):
            expect_in(part, line[1])
        expect(box.state("echod.service") == "active", "the service does not run any more")
        all_served(held.ask(), 20)
        box.once()
        box.write(CONFIG, good)
        box.systemctl("reload", "echod.service")
        expect("refused" not in box.show("echod.service", "StatusText"), "the refusal stays after a good reload")
        all_served(held.ask(), 20)
        expect(box.main_pid() == pid, "the service was restarted")


@scenario()
def reload_with_the_file_gone(box):
    box.systemctl("start", "echod.socket")
    with box.load("hold", 20) as held:
        held.told()
        # Connected is not served: the service may yet be on its way to the file.
        all_served(held.ask(), 20)
        pid = box.main_pid()
        box.out("mv", CONFIG, CONFIG + ".away")
        expect(reload(box).returncode != 0, "systemctl reload succeeds")
        box.awaits("reload refused", CONFIG, "No such file")
        all_served(held.ask(), 20)
        box.once()
        box.out("mv", CONFIG + ".away", CONFIG)
        box.systemctl("reload", "echod.service")
        all_served(held.ask(), 20)
        expect(box.main_pid() == pid, "the service was restarted")


@scenario()
def reload_that_needs_a_restart(box):
    box.systemctl("start", "echod.service")
    prepend(box, "workers = 1")
    expect(reload(box).returncode != 0, "systemctl reload succeeds")
    box.awaits("reload refused", "workers", "restart")
    box.systemctl("restart", "echod.service")
    box.awaits("ready", "workers=1")
