"""What bytes that are no readable image are instead, by how they begin: a hint for whoever sent them."""

from __future__ import annotations

import re

# The beginning -> what is said. Brands of ISO 14496-12 files: 23008-12 (HEIF), the AV1 image format's.
_SIGNATURES = {
    rb"....ftyp(hei|hev|mif1|msf1)": "this is HEIC, as iPhones write it: save it as JPEG",
    rb"....ftypavi[fs]": "this is AVIF: save it as JPEG",
    rb"....ftyp": "this is a video: send one of its frames",
    rb"%PDF": "this is a PDF: save its page as PNG",
    rb"\s*<": "this is HTML, SVG or XML: send a picture itself",
    rb"(https?://|file://|data:)\S": "this is an address: send the file that is there",
    rb"\xff\xd8\xff|\x89PNG|GIF8|II\*\0|MM\0\*|RIFF....WEBP": "it begins like one, and is damaged",
    rb"[\t\n\r -~]+\Z|[\t\n\r -~]{200}": "this is text, perhaps the name of a file instead of its content",
}


def what_it_is(content: bytes) -> str:
    """In words, empty where nothing is known."""
    return next((said for begin, said in _SIGNATURES.items() if re.match(begin, content[:300], re.DOTALL)), "")
