"""The hints about files of other kinds."""

from __future__ import annotations

import pytest

from models.errors import ImageError
from models.pixels.signatures import what_it_is
from models.preprocess import decode

KINDS = [
    (b"\0\0\0\x18ftypcrx \0\0\0\1", "a camera's raw file"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\xff\x0a\xfa\x1f", "JPEG XL"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51\0\x2f", "JPEG 2000"),
    (b"II\xbc\1\x08\0\0\0", "JPEG XR"),
    (b"8BPS\0\1", "Photoshop"),
    (b"FUJIFILMCCD-RAW 0201", "a camera's raw file"),
    (b"IIRO\x08\0\0\0", "a camera's raw file"),
    (b"IIU\0\x18\0\0\0", "a camera's raw file"),
    (b"\0\0\1\0\1\0\x10\x10", "an icon"),
    (b"\0\0\2\0\1\0\x20\x20", "an icon"),
    (b"icns\0\0\1\0", "an icon"),
    (b"P6\n2 2\n255\n", "Netpbm"),
    (b"Pf\n2 2\n-1.0\n", "Netpbm"),
    (b"qoif\0\0\0\2", "QOI"),
    (b"\x76\x2f\x31\x01\2\0", "OpenEXR"),
    (b"#?RADIANCE\n", "Radiance"),
    (b"DDS |\0\0\0", "DirectDraw"),
    (b"\x8aMNG\r\n\x1a\n", "MNG"),
    (b"gimp xcf file\0", "GIMP"),
    (b"BPG\xfb\0", "BPG"),
    (b"\x0a\5\1\x08\0\0", "PCX"),
    (b"SIMPLE  =   T", "FITS"),
    (bytes(128) + b"DICM\2\0", "DICOM"),
    (b"\x01\xda\1\1\0\3", "SGI"),
    (b"\xd7\xcd\xc6\x9a\0\0", "metafile"),
    (b"BA\x28\0\0\0\0\0\0\0\0\0\0\0BM", "OS/2 bitmap array"),
    (b"%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript"),
    (b"AT&TFORM\0\0", "DjVu"),
    (b"RIFF\0\0\0\0AVI LIST", "a video"),
    (b"\x1a\x45\xdf\xa3\1\0", "a video"),
    (b"PK\3\4\x14\0", "an archive"),
    (b"<?xml version='1.0'?><svg/>", "SVG"),
    (b"%PDF-1.7", "a PDF"),
]


@pytest.mark.parametrize(("content", "kind"), KINDS, ids=[f"{kind} {number}" for number, (_, kind) in enumerate(KINDS)])
def test_a_file_of_another_kind_is_named(content: bytes, kind: str) -> None:
    for length in (0, 1000):
        with pytest.raises(ImageError, match=f"not a readable image; formats: .*; this is .*{kind}") as caught:
            decode(content + bytes(length))
        assert caught.value.code == "undecodable_image"
        assert "damaged" not in caught.value.detail


def test_an_unknown_kind_has_no_hint() -> None:
    assert what_it_is(bytes(1000)) == ""
    assert what_it_is(b"") == ""
