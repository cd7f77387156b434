#!/usr/bin/env python3
"""Judges what testssl.sh found: whatever is worse than LOW, or could not be looked at, is a failure.

    python3 testssl_verdict.py RESULT.json
"""

import json
import sys

# What has to be among the findings, so that a run which looked at nothing does not pass.
LOOKED_AT = ("TLS1", "TLS1_2", "TLS1_3", "cert_chain_of_trust", "heartbleed", "secure_client_renego", "BEAST", "RC4")
# What is as it should be, and why.
EXCEPTIONS = {
    "cipher_order": "the peer's order counts: each suite is strong, and who has no AES in hardware wants another one first",
    "engine_problem": "of the openssl that testssl.sh uses, and not of whoever is looked at",
}
FAILING = ("WARN", "MEDIUM", "HIGH", "CRITICAL", "FATAL")

with open(sys.argv[1], encoding="utf-8") as file:
    findings = json.load(file)
ids = {finding["id"].split(" ")[0] for finding in findings}
bad = [f"{name} was not looked at" for name in LOOKED_AT if name not in ids]
for finding in findings:
    if finding["severity"] in FAILING and finding["id"] not in EXCEPTIONS:
        bad.append(f"{finding['severity']} {finding['id']}: {finding['finding']}")
sys.exit("\n".join(bad) or None)
