"""Names the kind of a file that is not a readable image, from its first bytes: a hint for the sender."""

from __future__ import annotations

import re

_AS_JPEG = "save it as JPEG"
_AS_PNG = "save it as PNG"
# How the file begins -> the hint. Brands of ISO 14496-12 files: 23008-12 (HEIF), the AV1 image format's, Canon's CR3.
_HINTS = {
    rb"....ftyp(hei|hev|mif1|msf1)": "this is HEIC, as iPhones write it: save it as JPEG",
    rb"....ftypavi[fs]": "this is AVIF: save it as JPEG",
    rb"....ftypcrx ": f"this is a camera's raw file (CR3), which is not supported: {_AS_JPEG}",
    rb"....ftyp": "this is a video: send one of its frames",
    rb"\0\0\0\x0cJXL |\xff\x0a": f"this is JPEG XL, which is not supported: {_AS_JPEG}",
    rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51": f"this is JPEG 2000, which is not supported: {_AS_JPEG}",
    rb"\xff\xd8\xff\xf7": f"this is JPEG-LS, which is not supported: {_AS_PNG}",
    rb"II\xbc": f"this is JPEG XR, which is not supported: {_AS_JPEG}",
    rb"8BPS": f"this is a Photoshop file (PSD), which is not supported: {_AS_PNG}",
    rb"FUJIFILMCCD-RAW|IIR[OS]|MMOR|IIU\0|II\*\0....CR|II\x1a\0\0\0HEAPCCDR": (
        f"this is a camera's raw file, which is not supported: {_AS_JPEG}"
    ),
    rb"\0\0[\x01\x02]\0.\0": f"this is an icon (ICO or CUR), which is not supported: {_AS_PNG}",
    rb"icns": f"this is an icon (ICNS), which is not supported: {_AS_PNG}",
    rb"P[1-7Ff]\s": f"this is a Netpbm picture (PBM, PGM, PPM, PAM or PFM), which is not supported: {_AS_PNG}",
    rb"qoif": f"this is QOI, which is not supported: {_AS_PNG}",
    rb"\x76\x2f\x31\x01": f"this is OpenEXR, which is not supported: {_AS_PNG}",
    rb"#\?(RADIANCE|RGBE)": f"this is Radiance HDR, which is not supported: {_AS_PNG}",
    rb"DDS ": f"this is a DirectDraw surface (DDS), which is not supported: {_AS_PNG}",
    rb"\x8aMNG|\x8bJNG": f"this is MNG or JNG, which is not supported: {_AS_PNG}",
    rb"gimp xcf": f"this is a GIMP file (XCF), which is not supported: {_AS_PNG}",
    rb"BPG\xfb": f"this is BPG, which is not supported: {_AS_JPEG}",
    rb"FLIF": f"this is FLIF, which is not supported: {_AS_PNG}",
    rb"\x0a[\x00\x02-\x05]\x01[\x01\x02\x04\x08]": f"this is PCX, which is not supported: {_AS_PNG}",
    rb"SIMPLE  =": f"this is FITS, which is not supported: {_AS_PNG}",
    rb".{128}DICM": f"this is DICOM, which is not supported: {_AS_PNG}",
    rb"\x01\xda[\x00\x01][\x01\x02]": f"this is an SGI picture, which is not supported: {_AS_PNG}",
    rb"\xd7\xcd\xc6\x9a|\x01\0\0\0.{36} EMF": f"this is a Windows metafile, which is not supported: {_AS_PNG}",
    rb"BA.{12}(BM|IC|PT|CI|CP)": f"this is an OS/2 bitmap array, which is not supported: {_AS_PNG}",
    rb"AT&TFORM": "this is a DjVu document: save its page as PNG",
    rb"%!PS|\xc5\xd0\xd3\xc6": "this is PostScript: save its page as PNG",
    rb"%PDF": "this is a PDF: save its page as PNG",
    rb"RIFF....AVI |\x1a\x45\xdf\xa3|\0\0\x01\xba": "this is a video: send one of its frames",
    rb"PK\x03\x04|\x1f\x8b\x08|7z\xbc\xaf|Rar!": "this is an archive: send the pictures in it",
    rb"\s*<": "this is HTML, SVG or XML: send an image file",
    rb"(https?://|file://|data:)\S": "this is a URL: send the file itself",
    rb"\xff\xd8\xff|\x89PNG|GIF8|II\*\0|MM\0\*|RIFF....WEBP": "it looks like one but is damaged",
    rb"[\t\n\r -~]+\Z|[\t\n\r -~]{200}": "this is text, perhaps the name of a file instead of its content",
}
# Compiled on import, so that the first such file need not wait for it.
_SIGNATURES = {re.compile(begin, re.DOTALL): hint for begin, hint in _HINTS.items()}


def what_it_is(content: bytes) -> str:
    """The hint; empty if the kind is unknown."""
    return next((hint for begin, hint in _SIGNATURES.items() if begin.match(content[:300])), "")
