"""MkDocs hooks that add the pages which are not files of docs/.

1. the reference is written from the code at every build, so it is never stale;
2. files from elsewhere in the repository become pages as they are;
3. a link to a file that is not a page becomes its path, and a broken link fails a strict build;
4. a `<picture>` with a dark version follows the theme switch of the site.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # these pages describe the code beside them, not what is installed

from mkdocs.structure.files import File  # noqa: E402

from scripts import docs_reference  # noqa: E402

# file of the site -> its source in the repository
MIRRORED = {
    "icon.svg": "service/page/icon.svg",
    "index.md": "README.md",
    "model-card.md": "models/store/README.md",
    "benchmark-log.md": "benchmarks/LOG.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
}
_LINK = re.compile(r"(!?\[[^\]]*\])\((?!\w+:|#)([^)#\s]+)(#[^)\s]+)?\)")
_PICTURE = re.compile(
    r'<picture>\s*<source [^>]*srcset="([^"]+)">\s*<img src="([^"]+)" alt="([^"]*)"[^>]*>\s*</picture>'
)

_PERCENT_IN_A_TABLE = re.compile(r"(?<=\d) (?=%)(?=.*\|$)", re.MULTILINE)

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
    themed = _PICTURE.sub(r"![\3](\2#only-light) ![\3](\1#only-dark)", markdown)
    unbroken = _PERCENT_IN_A_TABLE.sub("\N{NO-BREAK SPACE}", themed)
    return _LINK.sub(lambda link: _relinked(link, source, here, pages), unbroken)


def _relinked(link: re.Match[str], source: str, here: str, pages: dict[str, str]) -> str:
    """A link as written in `source` -> a link from the page `here`, or the path of a file that is not a page."""
    label, target, anchor = link[1], link[2], link[3] or ""
    path = os.path.normpath(Path(source).parent / target)
    if path in pages:
        return f"{label}({os.path.relpath(pages[path], Path(here).parent)}{anchor})"
    if not (ROOT / path).exists():
        log.warning("%s links to %s, which is not there", source, path)
    return f"`{path}`"
