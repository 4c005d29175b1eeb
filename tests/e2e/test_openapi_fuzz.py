"""Requests made from /openapi.json, right and wrong ones, against the real server: each is answered as it says.

FUZZ_EXAMPLES=300 makes a long run of it, with every boundary value, too.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from conftest import Server

# Not those that want every wrong request refused, for any bytes are a body; nor the one that takes 503 and 504, which
# the document promises, for errors: instead the server's own count of 500 is looked at.
CHECKS = "status_code_conformance,content_type_conformance,response_schema_conformance"
EXAMPLES = os.environ.get("FUZZ_EXAMPLES", "30")
PHASES = "examples,coverage,fuzzing" if "FUZZ_EXAMPLES" in os.environ else "examples,fuzzing"


@pytest.mark.timeout(0)
def test_whatever_is_asked_is_answered_as_the_document_says(server: Server, http: httpx.Client, tmp_path: Path) -> None:
    def failures() -> list[str]:
        return re.findall(r'_count{code="500".*', http.get("/metrics").text)

    before = failures()
    command = [Path(sys.executable).with_name("schemathesis"), "run", f"{server.url}/openapi.json", "--checks", CHECKS]
    command += ["--phases", PHASES, "--max-examples", EXAMPLES, "--seed", "1", "--no-color"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert failures() == before
