# ruff: noqa: INP001 - a script of its own, not a package
"""Compare the locked packages with the published advisories: what is vulnerable, and what could not be asked about.

Run by `make audit` in pip-audit's own environment. Exit code 0: all were asked about, nothing is known; 1: something;
3: of some or all nobody could be asked, which is never reported as clean (pip-audit itself would).
"""

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REQUIREMENTS = Path(__file__).parents[1] / "requirements"
LOCKS = ("dev.lock", "audit.lock", "installer.txt")
SERVICES = ("pypi", "osv")
ACCEPTED: Mapping[str, str] = {}
"""Advisory -> why it does not concern us, until a version without it is locked."""
TIMEOUT_S = 60
VULNERABLE, NOT_AUDITED = 1, 3


@dataclass(slots=True)
class Findings:
    """What is known of the packages of one lock, "name version" each."""

    asked: set[str] = field(default_factory=set)
    unasked: set[str] = field(default_factory=set)
    vulnerable: dict[str, str] = field(default_factory=dict)

    def take(self, dependencies: Iterable[Mapping[str, Any]], accepted: Mapping[str, str]) -> None:
        """Add what pip-audit reported: a package it skipped was not audited."""
        for each in dependencies:
            if "skip_reason" in each:
                self.unasked.add(each["name"])
                continue
            package = f"{each['name']} {each['version']}"
            self.asked.add(each["name"])
            for found in each["vulns"]:
                if not {found["id"], *found.get("aliases", ())} & accepted.keys():
                    fixed = ", ".join(found["fix_versions"]) or "no version yet"
                    self.vulnerable[f"{package}: {found['id']}"] = f"fixed in {fixed}"
        self.unasked -= self.asked

    def told(self, lock: str) -> str:
        """For people."""
        lines = [f"VULNERABLE  {what}, {fixed}" for what, fixed in sorted(self.vulnerable.items())]
        if not self.asked:
            lines.append(f"NOT AUDITED  {lock}: no source of advisories could be reached. This is no all-clear.")
        elif self.unasked:
            lines.append(f"NOT AUDITED  {lock}: of {', '.join(sorted(self.unasked))} nothing could be asked")
        else:
            known = f"{len(self.vulnerable)} known advisories" if self.vulnerable else "no advisory is known"
            lines.append(f"{lock}: {len(self.asked)} packages, {known}")
        return "\n".join(lines)


def code_of(findings: Iterable[Findings]) -> int:
    """The exit code."""
    findings = list(findings)
    if any(each.vulnerable for each in findings):
        return VULNERABLE
    return NOT_AUDITED if any(each.unasked or not each.asked for each in findings) else 0


def report_of(lock: str, service: str) -> list[dict[str, Any]]:
    """What pip-audit says of a lock's packages; nothing where it could not ask."""
    place = ("--requirement", str(REQUIREMENTS / lock), "--disable-pip", "--require-hashes")
    how = ("--vulnerability-service", service, "--timeout", "15", "--format", "json", "--progress-spinner", "off")
    command = [sys.executable, "-m", "pip_audit", *place, *how]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError, KeyError):
        return []
    return found


def audited(lock: str, services: list[str]) -> Findings:
    """Ask the services in turn until each package of the lock was asked about; one that knows none is asked no more."""
    findings = Findings()
    for service in list(services):
        report = report_of(lock, service)
        findings.take(report, ACCEPTED)
        if all("skip_reason" in each for each in report):
            services.remove(service)
        if findings.asked and not findings.unasked:
            break
    return findings


def main() -> int:
    """Audit every lock."""
    services = list(SERVICES)
    found = {lock: audited(lock, services) for lock in LOCKS}
    for lock, findings in found.items():
        sys.stdout.write(f"{findings.told(lock)}\n")
    return code_of(found.values())


if __name__ == "__main__":
    sys.exit(main())
