"""The bytes of a video file before any decoder sees them: what it is, and whether it is whole."""

import os
from collections.abc import Iterator
from pathlib import Path

CONVERT = "convert it: ffmpeg -i IN -c:v libx264 -crf 16 OUT.mp4"
SIGNATURES = {  # first bytes → what the file is; none of these is read
    b"OggS": "an Ogg file (.ogv, .ogg)",
    b"0&\xb2u": "a Windows Media file (.wmv, .asf)",
    b"\x00\x00\x01\xba": "an MPEG program stream (.mpg, .vob)",
    b"\x00\x00\x01\xb3": "a bare MPEG stream (.m2v)",
    b"\x00\x00\x00\x01": "a bare H.264 or H.265 stream",
    b"\x00\x00\x01\x67": "a bare H.264 stream",
    b"FLV": "a Flash file (.flv)",
    b".RMF": "a RealMedia file (.rm)",
    b"\x06\x0e+4": "an MXF file",
    b"YUV4MPEG2": "a YUV4MPEG file (.y4m)",
    b"DKIF": "an IVF file",
    b"nut/multimedia": "a NUT file",
    b"GIF8": "a GIF",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"ID3": "an MP3 file, sound alone",
    b"fLaC": "a FLAC file, sound alone",
    b"PK\x03\x04": "a ZIP archive: unpack it",
    b"\x1f\x8b": "a gzip archive: unpack it",
    b"Rar!": "a RAR archive: unpack it",
    b"7z\xbc\xaf": "a 7z archive: unpack it",
    b"%PDF": "a PDF",
    b"#EXTM3U": "a playlist, which names other files",
    b"ffconcat": "a playlist, which names other files",
    b"<": "a web page or XML, not the film it tells of: download it again",
    b"version https://git-lfs": "a Git LFS pointer, not the film: run git lfs pull",
}
NO_VIDEO = ("picture", "alone", "archive", "PDF", "playlist", "web page", "pointer")
MP4_TYPES = {  # of an MP4's outermost boxes; what follows another is no part of it
    b"ftyp", b"moov", b"mdat", b"moof", b"free", b"skip", b"wide", b"styp", b"sidx", b"mfra",
    b"meta", b"uuid", b"udta", b"emsg", b"prft", b"pdin", b"pnot", b"PICT",
}  # fmt: skip
PADDING = ("free", "skip", "wide", "uuid", "udta")  # may be cut without loss
EBML = b"\x1aE\xdf\xa3"
SEGMENT = b"\x18S\x80g"
MAX_BOXES = 1_000_000


def foreign_container(file: Path) -> str:
    """Say what a file is that is not read, and what to do; "" where it cannot be told."""
    with open(file, "rb") as stream:
        head = stream.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
    for signature, name in SIGNATURES.items():
        if head.startswith(signature):
            advice = "" if any(word in name for word in NO_VIDEO) else f": {CONVERT}"
            return f"not accepted: {name}{advice}"
    if head.startswith(b"RIFF") and head[8:12] != b"AVI ":
        return "not accepted: a RIFF file that is no AVI"
    return ""


def cut_short(file: Path) -> str:
    """Say which of a file's outermost parts reaches beyond its end, "" where none does.

    Raises ValueError where a second film begins. Looks at MP4, Matroska and AVI alone.
    """
    size = os.path.getsize(file)
    with open(file, "rb") as stream:
        head = stream.read(12)
        if head[4:8] in MP4_TYPES:
            return _judge(list(_mp4_boxes(stream, size)), size, ("moov", "ftyp"))
        if head.startswith(EBML):
            return _judge(list(_ebml_elements(stream, size)), size, ("Segment",))
        if head.startswith(b"RIFF"):
            return _judge(list(_riff_chunks(stream)), size, ("AVI ",))
    return ""


def _judge(parts: list[tuple[str, int]], size: int, once: tuple[str, ...]) -> str:
    """Judge parts (name, end): one that ends after the file does, two of a kind there is one of."""
    names = [name for name, _ in parts]
    for name in once:
        if names.count(name) > 1:
            raise ValueError(
                f"{names.count(name)} films joined by bytes in one file, of which only the first "
                "would be seen: split it, or join the films with FFmpeg's concat demuxer"
            )
    for name, end in parts:
        if end > size and name not in PADDING:
            return f"truncated: {end - size:,} bytes of its part {name.strip()} are missing"
    return ""


def _mp4_boxes(stream, size: int) -> Iterator[tuple[str, int]]:
    """List the outermost boxes: name, and where each ends."""
    at = 0
    for _ in range(MAX_BOXES):
        stream.seek(at)
        head = stream.read(16)
        if len(head) < 8:
            return
        length = int.from_bytes(head[:4], "big")
        if length == 1 and len(head) == 16:
            length = int.from_bytes(head[8:], "big")
        elif length == 0:  # to the end of the file
            length = size - at
        name = head[4:8]
        if length < 8 or name not in MP4_TYPES:
            return
        yield name.decode("ascii"), at + length
        at += length


def _ebml_elements(stream, size: int) -> Iterator[tuple[str, int]]:
    """List the outermost elements of Matroska; a live recording's have no length and no end."""
    at = 0
    for _ in range(MAX_BOXES):
        stream.seek(at)
        head = stream.read(12)
        if head[:4] not in (EBML, SEGMENT) or len(head) < 5:
            return
        width = 9 - head[4].bit_length()  # of the length, told by its first bit
        if width > 8 or len(head) < 4 + width:
            return
        ones = (1 << 7 * width) - 1
        length = int.from_bytes(head[4 : 4 + width], "big") & ones
        name = "Segment" if head[:4] == SEGMENT else "EBML"
        if length == ones:
            yield name, size
            return
        yield name, at + 4 + width + length
        at += 4 + width + length


def _riff_chunks(stream) -> Iterator[tuple[str, int]]:
    """List the RIFF chunks of an AVI: one "AVI ", then as many "AVIX" as it is long."""
    at = 0
    for _ in range(MAX_BOXES):
        stream.seek(at)
        head = stream.read(12)
        if not head.startswith(b"RIFF") or len(head) < 12:
            return
        length = int.from_bytes(head[4:8], "little")
        if length < 4:
            return
        yield head[8:12].decode("latin-1"), at + 8 + length
        at += 8 + length + length % 2
