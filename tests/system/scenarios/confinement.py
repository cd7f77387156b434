"""What the service may do, which is next to nothing, and how that is measured."""

import pathlib
import re
import subprocess
import tempfile

from world import EVERYWHERE, HERE, V4, expect, expect_in, scenario

EXAMPLES = "/usr/share/doc/echod/examples"
SELF_BIND = f"{EXAMPLES}/self-bind.conf"
IO_URING = f"{EXAMPLES}/io-uring.conf"


def exposure(box):
    told = box.out("systemd-analyze", "security", "--offline=true", "--no-pager", "echod.service")
    found = re.search(r"Overall exposure level for echod\.service: ([0-9.]+)", told)
    expect(found, f"systemd-analyze says no figure: {told[-300:]}")
    gaps = [line for line in told.splitlines() if line.startswith("✗")]
    return float(found[1]), "\n".join(gaps)


@scenario(suites=EVERYWHERE)
def exposure_is_at_most_0_3(box):
    figure, gaps = exposure(box)
    expect(figure <= 0.3, f"the exposure level is {figure}:\n{gaps}")


@scenario(suites=EVERYWHERE)
def exposure_with_self_bind_is_at_most_1_1(box):
    box.drop_in("echod.service", box.read(SELF_BIND))
    figure, gaps = exposure(box)
    expect(figure <= 1.1, f"the exposure level is {figure}:\n{gaps}")


@scenario(suites=EVERYWHERE)
def exposure_with_io_uring_is_at_most_0_3(box):
    box.drop_in("echod.service", box.read(IO_URING))
    figure, gaps = exposure(box)
    expect(figure <= 0.3, f"the exposure level is {figure}:\n{gaps}")


@scenario(suites=EVERYWHERE)
def systemd_analyze_verify_is_silent(box):
    told = box.try_("systemd-analyze", "verify", "echod.service", "echod.socket")
    expect(told.returncode == 0 and not told.stdout + told.stderr, f"it says: {told.stdout}{told.stderr}")


def compiled_probe(box):
    """The probe, static, so that it runs on every release."""
    with tempfile.TemporaryDirectory() as place:
        probe = pathlib.Path(place) / "probe"
        subprocess.run(["cc", "-O1", "-static", "-o", probe, HERE / "probe.c"], check=True)
        box.copy(probe, "/root/probe")


def routes(text):
    """Which routes led to a socket, and which did not."""
    had = set(re.findall(r"^had (.*)$", text, re.M))
    denied = set(re.findall(r"^denied (.*?): ", text, re.M))
    return had, denied


@scenario(suites=EVERYWHERE)
def no_network_socket_can_be_had_by_any_route(box):
    compiled_probe(box)
    outside, _ = routes(box.out("/root/probe"))
    for route in ("socket AF_INET stream", "socket AF_INET6 stream", "IORING_OP_SOCKET AF_INET"):
        expect(route in outside, f"outside of the sandbox, {route!r} should work: {sorted(outside)}")
    box.out("cp", "/root/probe", "/usr/sbin/echod")
    box.systemctl("start", "echod.service")
    had, denied = routes("\n".join(box.messages()))
    expect(had == {"socket AF_UNIX"}, f"had in the sandbox: {sorted(had)}")
    expect(outside | denied == denied | had, f"these were not tried in it: {sorted(outside - denied - had)}")


@scenario(suites=EVERYWHERE)
def io_uring_is_had_with_its_drop_in_and_no_socket_by_a_call(box):
    compiled_probe(box)
    box.drop_in("echod.service", box.read(IO_URING))
    box.out("cp", "/root/probe", "/usr/sbin/echod")
    box.systemctl("start", "echod.service")
    had, _ = routes("\n".join(box.messages()))
    # What a ring of its own would give to whoever took over: why the daemon denies itself another.
    by_ring = {"io_uring", "IORING_OP_SOCKET AF_INET", "IORING_OP_SOCKET AF_INET6"}
    expect(had == by_ring | {"socket AF_UNIX"}, f"had with the drop-in: {sorted(had)}")


@scenario(suites=EVERYWHERE)
def a_service_without_io_uring_serves_by_epoll_or_says_so(box):
    box.edit_config("#engine = \"epoll\"", "engine = \"auto\"")
    box.systemctl("start", "echod.service")
    box.echoes()
    box.awaits("engine engine=epoll cause=")
    expect_in(", engine epoll", box.show("echod.service", "StatusText"))
    box.edit_config("engine = \"auto\"", "engine = \"io_uring\"")
    told = box.try_("systemctl", "restart", "echod.service")
    expect(told.returncode != 0, "it starts without io_uring")
    box.awaits("engine \"io_uring\": not available: ", "(use \"epoll\" or \"auto\")")


@scenario()
def nothing_is_left_to_steal(box):
    box.systemctl("start", "echod.service")
    status = box.read(f"/proc/{box.main_pid()}/status")
    for what in ("Inh", "Prm", "Eff", "Bnd", "Amb"):
        expect_in(f"Cap{what}:\t0000000000000000", status)
    expect_in("NoNewPrivs:\t1", status)
    expect_in("Seccomp:\t2", status)
    uid = box.out("id", "-u", "echod").strip()
    expect(re.search(rf"^Uid:\t{uid}\t{uid}\t{uid}\t{uid}$", status, re.M), f"not the user echod: {status}")


@scenario()
def masked_socket_does_not_stop_a_service_that_binds(box):
    box.systemctl("mask", "echod.socket")
    box.drop_in("echod.service", box.read(SELF_BIND))
    box.systemctl("start", "echod.service")
    box.echoes()
    expect(box.state("echod.socket") == "inactive", "the masked socket is there")


@scenario()
def service_that_cannot_bind_in_its_sandbox_says_what_to_do(box):
    box.systemctl("mask", "echod.socket")
    told = box.try_("systemctl", "start", "echod.service")
    expect(told.returncode != 0, "it starts without a socket")
    box.awaits("listener \"echo\"", "no network of its own", EXAMPLES)


@scenario()
def root_binds_port_7_and_drops_its_privileges(box):
    box.systemctl("mask", "echod.socket")
    box.edit_config('address = ["[::]:8080"]', 'address = ["[::]:7"]')
    box.drop_in("echod.service", box.read(SELF_BIND) + box.read(f"{EXAMPLES}/start-as-root.conf"))
    box.systemctl("start", "echod.service")
    box.once(V4, port=7)
    uid = box.out("id", "-u", "echod").strip()
    status = box.read(f"/proc/{box.main_pid()}/status")
    expect(re.search(rf"^Uid:\t{uid}\t{uid}\t{uid}\t{uid}$", status, re.M), f"not the user echod: {status}")
    for what in ("Inh", "Prm", "Eff", "Bnd", "Amb"):
        expect_in(f"Cap{what}:\t0000000000000000", status)
    expect_in("NoNewPrivs:\t1", status)
    box.awaits("privileges dropped", f"uid={uid}", "capabilities=none")
    box.systemctl("reload", "echod.service")
    box.systemctl("restart", "echod.service")
    box.once(V4, port=7)

