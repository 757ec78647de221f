"""`python -m tests.audit`: whether a pinned package has a known vulnerability, as far as anyone can be asked."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

_LOCK_FILES = ("requirements.txt", "requirements-dev.txt")
_SERVICES = ("pypi", "osv")
_SECONDS = 300


def ask(service: str) -> list[dict[str, Any]] | None:
    """pip-audit's findings, one for each package; None when the service does not answer."""
    command = [sys.executable, "-m", "pip_audit", "--vulnerability-service", service, "--format", "json"]
    command += ["--progress-spinner", "off", "--timeout", "10", "--disable-pip", "--require-hashes"]
    for file in _LOCK_FILES:
        command += ["--requirement", file]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
        packages: list[dict[str, Any]] = json.loads(answer.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError):
        return None
    return packages


def main() -> int:
    """Ask until a service knows the packages; returns 1 when one has a vulnerability, else 0."""
    for service in _SERVICES:
        packages = ask(service)
        if packages is None:
            print(f"pip-audit: the service {service} does not answer")
            continue
        known = [package for package in packages if "skip_reason" not in package]
        found = [package for package in known if package["vulns"]]
        for package in found:
            for vulnerability in package["vulns"]:
                fixed = ", ".join(vulnerability["fix_versions"]) or "none yet"
                print(f"{package['name']} {package['version']}: {vulnerability['id']}; mended in {fixed}")
        if found:
            return 1
        if known:
            print(f"pip-audit: no known vulnerability in {len(known)} of {len(packages)} packages, asked of {service}")
            return 0
        print(f"pip-audit: the service {service} knows none of the {len(packages)} packages")
    print("pip-audit: NOT CHECKED: no service that knows of vulnerabilities can be reached from here")
    return 0


if __name__ == "__main__":
    sys.exit(main())
