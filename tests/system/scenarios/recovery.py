"""What goes wrong, and how it heals by itself."""

import time

from world import BOTH, CONFIG, EVERYWHERE, V4, V6, all_served, eventually, expect, expect_in, scenario


def restarts(box):
    return int(box.show("echod.service", "NRestarts"))


@scenario(suites=EVERYWHERE)
def bad_file_at_the_start_with_a_peer_waiting(box):
    good = box.read(CONFIG)
    box.write(CONFIG, good + "\nidel = 1\n")
    box.systemctl("start", "echod.socket")
    with box.load("once", 500, [V4]) as first, box.load("once", 500, [V6]) as second:
        eventually(lambda: restarts(box) >= 3, "the start is not tried again", 30)
        expect(box.state("echod.socket") == "active", f"the socket is {box.state('echod.socket')}")
        refusal = box.awaits(CONFIG, "idel")
        expect_in(f"{CONFIG}:{good.count(chr(10)) + 2}:", refusal)
        expect("78" in box.show("echod.service", "ExecMainStatus"), "the exit status is not 78")
        box.write(CONFIG, good)
        all_served(first.told(), 1)
        all_served(second.told(), 1)
    box.echoes()


@scenario()
def watchdog_ends_a_process_that_hangs(box):
    box.drop_in("echod.service", "[Service]\nWatchdogSec=2s\n")
    box.systemctl("start", "echod.socket")
    box.echoes()
    pid = box.main_pid()
    box.out("kill", "-STOP", str(pid))
    with box.load("once", 500, [V4]) as peer:
        all_served(peer.told(), 1)
    expect(box.main_pid() != pid, "the process that hung is still there")
    expect(restarts(box) == 1, f"{restarts(box)} restarts")
    expect_in("Watchdog timeout", box.out("journalctl", "-b", "-u", "echod", "--no-pager"))


@scenario()
def watchdog_is_content_with_an_idle_daemon(box):
    box.drop_in("echod.service", "[Service]\nWatchdogSec=1s\n")
    box.systemctl("start", "echod.service")
    begun = box.show("echod.service", "WatchdogTimestampMonotonic")
    eventually(
        lambda: int(box.show("echod.service", "WatchdogTimestampMonotonic")) - int(begun) > 3_000_000,
        "the watchdog does not hear of the daemon",
    )
    expect(restarts(box) == 0, "the watchdog ended a daemon that was well")


@scenario()
def ten_kills_under_five_hundred_connecting_peers(box):
    box.systemctl("start", "echod.socket")
    with box.load("storm", 500) as storm:
        storm.told()
        for number in range(1, 11):
            pid = eventually(lambda: box.state("echod.service") == "active" and box.main_pid(), "the service does not return")
            before = storm.ask()["served"]
            eventually(lambda: storm.ask()["served"] > before, "nobody is served between two kills", 60)
            box.out("kill", "-KILL", str(pid))
            eventually(lambda: restarts(box) == number, f"the service is not restarted after kill {number}")
            expect(box.state("echod.socket") == "active", f"the socket is {box.state('echod.socket')}")
        eventually(lambda: box.state("echod.service") == "active", "the service does not return")
        tally = storm.finish()
    for outcome in ("refused", "late", "wrong"):
        expect(tally[outcome] == 0, f"{outcome}: {tally}")
    # Only conversations that the killed process had begun may be cut.
    expect(tally["broken"] <= 10 * 500 / 4, f"too many were cut: {tally}")
    box.echoes()


@scenario()
def service_that_is_killed_while_idle_returns(box):
    box.systemctl("start", "echod.service")
    box.out("systemctl", "kill", "--signal=KILL", "echod.service")
    eventually(lambda: restarts(box) == 1 and box.state("echod.service") == "active", "the service does not return")
    for host in BOTH:
        box.once(host)


@scenario()
def long_drain_is_given_its_time(box):
    box.edit_config('#drain_timeout = "30s"', 'drain_timeout = "8s"')
    box.drop_in("echod.service", "[Service]\nTimeoutStopSec=3s\n")
    box.systemctl("start", "echod.service")
    with box.load("clog", 3) as clog:
        clog.told()
        begun = time.monotonic()
        box.systemctl("stop", "echod.service")
        seconds = time.monotonic() - begun
    expect(seconds > 7, f"the drain took {seconds:.1f} s instead of its 8")
    expect(box.show("echod.service", "Result") == "success", f"it ended with {box.show('echod.service', 'Result')}")
    ended = [m for m in box.messages() if "reason=drain" in m]
    expect(len(ended) == 3, f"{len(ended)} of 3 connections were ended by the drain: {ended}")
