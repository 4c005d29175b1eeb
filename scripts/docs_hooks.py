"""MkDocs hooks: pages that are not files of docs/.

1. the reference is written from the code at every build, so that it cannot go stale;
2. pages that lie elsewhere in the repository are shown as they are;
3. a link to a file that is no page becomes its path, and one that leads nowhere fails a strict build.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the code beside these pages is what they describe, whatever is installed

from mkdocs.structure.files import File  # noqa: E402

from scripts import docs_reference  # noqa: E402

# page -> where it lies
MIRRORED = {
    "index.md": "README.md",
    "model-card.md": "models/store/README.md",
    "benchmark-log.md": "benchmarks/LOG.md",
    "changelog.md": "CHANGELOG.md",
}
_LINK = re.compile(r"(!?\[[^\]]*\])\((?!\w+:|#)([^)#\s]+)(#[^)\s]+)?\)")

log = logging.getLogger("mkdocs.hooks")


def on_files(files: Any, config: Any) -> None:
    for page, text in docs_reference.pages().items():
        files.append(File.generated(config, page, content=text))
    for page, source in MIRRORED.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    here = page.file.src_uri
    source = MIRRORED.get(here, f"docs/{here}")
    pages = {MIRRORED.get(file.src_uri, f"docs/{file.src_uri}"): file.src_uri for file in files}
    return _LINK.sub(lambda link: _relinked(link, source, here, pages), markdown)


def _relinked(link: re.Match[str], source: str, here: str, pages: dict[str, str]) -> str:
    """A link as written in `source` -> one from the page `here` to another page, else the path of a file."""
    label, target, anchor = link[1], link[2], link[3] or ""
    path = os.path.normpath(Path(source).parent / target)
    if path in pages:
        return f"{label}({os.path.relpath(pages[path], Path(here).parent)}{anchor})"
    if not (ROOT / path).exists():
        log.warning("%s links to %s, which is not there", source, path)
    return f"`{path}`"
