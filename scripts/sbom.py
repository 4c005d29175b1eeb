"""Print a CycloneDX bill of materials of this environment: Python distributions and, on Debian, system packages.

Needs only Python, so it can run from stdin inside an image that does not contain it:
`docker run --rm --interactive --entrypoint python IMAGE - < scripts/sbom.py` (this is `make sbom`).
The output is deterministic: it has no timestamp, and its serial number is derived from the content.
"""

from __future__ import annotations

import json
import re
import sys
import uuid
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any
from urllib.parse import quote

DPKG_STATUS = Path("/var/lib/dpkg/status")
OS_RELEASE = Path("/etc/os-release")


def python_components(found: Iterable[Distribution]) -> Iterator[dict[str, Any]]:
    for one in found:
        name = re.sub(r"[-_.]+", "-", one.name).lower()  # PEP 503, as package URLs require
        component = {"type": "library", "name": name, "version": one.version, "purl": f"pkg:pypi/{name}@{one.version}"}
        if licence := one.metadata.get("License-Expression"):
            component["licenses"] = [{"expression": licence}]
        yield component


def debian_components(status: str, distribution: str) -> Iterator[dict[str, Any]]:
    """From the text of dpkg's status file: paragraphs of `Key: value` lines."""
    for paragraph in status.split("\n\n"):
        fields = dict(re.findall(r"^([\w-]+): (.*)$", paragraph, re.MULTILINE))
        if fields.get("Status", "").endswith(" installed"):
            name, version = fields["Package"], fields["Version"]
            purl = f"pkg:deb/{distribution}/{name}@{quote(version, safe='.-~')}?arch={fields['Architecture']}"
            yield {"type": "library", "name": name, "version": version, "purl": purl}


def bill(components: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """CycloneDX 1.6, https://cyclonedx.org/docs/1.6/json/."""
    unique = {component["purl"]: component | {"bom-ref": component["purl"]} for component in components}
    listed = [unique[purl] for purl in sorted(unique)]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(listed))}",
        "version": 1,
        "components": listed,
    }


def main() -> None:
    components = [*python_components(distributions())]
    if DPKG_STATUS.is_file():
        system = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', OS_RELEASE.read_text(), re.MULTILINE))
        components += debian_components(DPKG_STATUS.read_text(), system["ID"])
    json.dump(bill(components), sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
