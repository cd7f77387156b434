"""Records, wherever an operator looks for them."""

import re

from world import CONFIG, EVERYWHERE, V4, V6, eventually, expect, expect_in, scenario

CONNECTION_ENDED = "6bd9f10ea8e14e64bc074d25440ea341"


@scenario(suites=EVERYWHERE)
def the_journal_holds_the_records(box):
    box.systemctl("start", "echod.socket")
    box.once(V4, count=700)
    box.awaits("connection ended", "reason=done", "received=700", "sent=700", "listener=echo")
    entries = [e for e in box.journal() if "connection ended" in e["MESSAGE"]]
    expect(len(entries) == 1, f"{len(entries)} records of one connection")
    wanted = {
        "_SYSTEMD_UNIT": "echod.service",
        "SYSLOG_IDENTIFIER": "echod",
        "PRIORITY": "6",
        "SYSLOG_FACILITY": "3",
        "_COMM": "echod",
        "_PID": str(box.main_pid()),
    }
    for key, value in wanted.items():
        expect(entries[0].get(key) == value, f"{key} is {entries[0].get(key)!r}, not {value!r}")
    identifiers = {e.get("SYSLOG_IDENTIFIER") for e in box.journal() if e.get("_COMM") == "echod"}
    expect(identifiers == {"echod"}, f"the daemon speaks as {identifiers}")


@scenario(suites=EVERYWHERE)
def native_fields_and_the_catalogue(box):
    box.edit_config('target = "syslog"', 'target = "journal"')
    box.systemctl("start", "echod.socket")
    box.once(V6, count=700)
    box.awaits("connection ended")
    found = box.journal(f"MESSAGE_ID={CONNECTION_ENDED}")
    expect(len(found) == 1, f"{len(found)} records by MESSAGE_ID")
    wanted = {
        "_SYSTEMD_UNIT": "echod.service",
        "SYSLOG_IDENTIFIER": "echod",
        "_TRANSPORT": "journal",
        "ECHOD_EVENT": "connection_ended",
        "ECHOD_LISTENER": "echo",
        "ECHOD_REASON": "done",
        "ECHOD_RECEIVED": "700",
        "ECHOD_SENT": "700",
    }
    for key, value in wanted.items():
        expect(found[0].get(key) == value, f"{key} is {found[0].get(key)!r}, not {value!r}")
    expect_in("[fd77::2]:", found[0]["ECHOD_PEER"])
    box.try_("sh", "-c", f"echo wrong >>{CONFIG}; systemctl reload echod")
    box.awaits("reload refused")
    ids = {e["MESSAGE_ID"] for e in box.journal() if "ECHOD_EVENT" in e}
    expect(len(ids) >= 4, f"only {ids} were said")
    for message_id in ids:
        explained = box.out("journalctl", "-b", "-x", "--no-pager", f"MESSAGE_ID={message_id}")
        expect(re.search(r"^(░░ |-- )Subject: ", explained, re.M), f"{message_id} is in no catalogue: {explained[:300]!r}")


@scenario()
def rsyslog_writes_them_too(box):
    box.systemctl("start", "echod.socket")
    box.once(V4, count=700)
    line = r" echod\[\d+\]: connection ended peer=10\.77\.0\.2:\d+ listener=echo reason=done received=700 "

    def look():
        log = box.try_("cat", "/var/log/syslog").stdout
        return re.findall(line, log)

    found = eventually(look, "rsyslog wrote no record")
    expect(len(found) == 1, f"rsyslog wrote {len(found)} records of one connection")
