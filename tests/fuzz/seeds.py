#!/usr/bin/env python3
"""Makes the seeds of the fuzz targets: small whole files of every kind, from their specifications alone.

    tests/fuzz/seeds.py        writes tests/fuzz/seeds/TARGET/NAME; the same bytes every time
"""
import gzip
import hashlib
import io
import json
import struct
import tarfile
import zlib
from pathlib import Path

HERE = Path(__file__).parent
PIXELS = bytes(1 + (x * 7 + y * 13) % 250 for y in range(16) for x in range(16))


def save(target, name, content):
    folder = HERE / "seeds" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


def png():
    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    rows = b"".join(b"\0" + PIXELS[16 * y : 16 * y + 16] for y in range(16))
    header = struct.pack(">IIBBBBB", 16, 16, 8, 0, 0, 0, 0)
    # No two compressors give the same bytes: stored blocks do.
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 0)) + chunk(b"IEND", b"")


def bmp(compression=0, pixels=PIXELS, bits=8):
    head = struct.pack("<IIiiHHIIiiII", 54, 40, 16, 16, 1, bits, compression, len(pixels), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHH", 54 + len(pixels), 0, 0) + head + pixels


def tiff(order, behind):
    entries = [(256, 16), (257, 16), (258, 8), (259, 1), (262, 1), (277, 1), (278, 8)]
    count = len(entries) + 2
    directory = 8 + len(PIXELS) if behind else 8
    tables = directory + 2 + 12 * count + 4
    pixels = 8 if behind else tables + 16
    body = struct.pack(order + "H", count)
    for tag, value in entries:
        body += struct.pack(order + "HHII", tag, 4, 1, value)
    body += struct.pack(order + "HHII", 273, 4, 2, tables) + struct.pack(order + "HHII", 279, 4, 2, tables + 8)
    body += struct.pack(order + "IIIII", 0, pixels, pixels + 128, 128, 128)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", directory)
    return head + (PIXELS + body if behind else body + PIXELS)


def segment(code, body):
    return bytes([0xFF, code]) + struct.pack(">H", len(body) + 2) + body


def jpeg(frame=0xC0, precision=8, restart=0):
    """Four blocks without coefficients: each is the codes `0` (no difference) and `0` (end of block)."""
    table = bytes([1] + [0] * 15 + [0])
    film = b"\xff\xd8" + segment(0xE1, b"Exif\0\0") + segment(0xDB, bytes([0] + [1] * 64))
    film += segment(frame, struct.pack(">BHHB", precision, 16, 16, 1) + b"\x01\x11\x00")
    film += segment(0xC4, b"\x00" + table) + segment(0xC4, b"\x10" + table)
    if restart:
        film += segment(0xDD, struct.pack(">H", restart))
    film += segment(0xDA, b"\x01\x01\x00\x00\x3f\x00")
    film += b"\x0f\xff\xd0\x0f" if restart == 2 else b"\x00"
    return film + b"\xff\xd9"


def set_of(order, explicit, pixels, sequence=True):
    def tag(group, element):
        return struct.pack(order + "HH", group, element)

    def number(element, value):
        form = b"US" + struct.pack(order + "H", 2) if explicit else struct.pack(order + "I", 2)
        return tag(0x28, element) + form + struct.pack(order + "H", value)

    def item(element, length):
        return tag(0xFFFE, element) + struct.pack(order + "I", length)

    uid = b"1.2.3\0"
    body = tag(8, 0x18) + (b"UI" + struct.pack(order + "H", 6) if explicit else struct.pack(order + "I", 6)) + uid
    if sequence:
        inner = item(0xE000, 0xFFFFFFFF) + number(2, 1) + item(0xE00D, 0) + item(0xE000, 0) + item(0xE0DD, 0)
        body += tag(8, 0x1140) + (b"SQ\0\0" if explicit else b"") + b"\xff\xff\xff\xff" + inner
    for element, value in [(2, 1), (0x10, 16), (0x11, 16), (0x100, 8), (0x101, 8), (0x102, 7), (0x103, 0)]:
        body += number(element, value)
    body += tag(0x7FE0, 0x10) + (b"OW\0\0" if explicit else b"")
    if pixels is None:
        stream = jpeg()
        stream += b"\0" * (len(stream) % 2)
        return body + b"\xff" * 4 + item(0xE000, 0) + item(0xE000, len(stream)) + stream + item(0xE0DD, 0)
    return body + struct.pack(order + "I", len(pixels)) + pixels


def part10(uid, body):
    uid = uid + b"\0" * (len(uid) % 2)
    return bytes(128) + b"DICM\x02\0\x10\0UI" + struct.pack("<H", len(uid)) + uid + body


def deflated(body):
    deflate = zlib.compressobj(0, zlib.DEFLATED, -15)
    return deflate.compress(body) + deflate.flush()


FILMS = {
    "png": png(),
    "bmp": bmp(),
    "bmp-rle": bmp(1, b"\x10\x09\0\0" * 16 + b"\0\x05abcde\0\0\x02\x01\x01\0\x01"),
    "bmp-24": bmp(0, PIXELS * 3, 24),
    "tiff-little": tiff("<", False),
    "tiff-big": tiff(">", True),
    "jpeg": jpeg(),
    "jpeg-restart": jpeg(restart=2),
    "jpeg-12": jpeg(0xC1, 12),
    "dicom-explicit": part10(b"1.2.840.10008.1.2.1", set_of("<", True, PIXELS)),
    "dicom-implicit": part10(b"1.2.840.10008.1.2", set_of("<", False, PIXELS)),
    "dicom-big": part10(b"1.2.840.10008.1.2.2", set_of(">", True, PIXELS)),
    "dicom-deflated": part10(b"1.2.840.10008.1.2.1.99", deflated(set_of("<", True, PIXELS))),
    "dicom-jpeg": part10(b"1.2.840.10008.1.2.4.50", set_of("<", True, None)),
    "dicom-bare": set_of("<", True, PIXELS),
}

for name, film in FILMS.items():
    # The first two bytes say where it is cut.
    save("completeness", name, struct.pack(">H", len(film) * 3 // 4) + film)
for kind in range(5):
    for variant in range(6):
        save("cut", f"{kind}-{variant}", bytes([kind, 15 + variant, 15, variant, 1, 200]) + PIXELS[:40])
for name, order, explicit in [("explicit", "<", True), ("implicit", "<", False), ("big", ">", True)]:
    save("dicom_structure", name, set_of(order, explicit, PIXELS))
save("dicom_structure", "encapsulated", set_of("<", True, None))
siz = struct.pack(">HIIIIIIIIH", 0, 16, 16, 0, 0, 16, 16, 0, 0, 1) + b"\x07\x01\x01"
save("dicom_structure", "jpeg-2000", b"\xff\x4f" + segment(0x51, siz) + b"\xff\xd9")
for name in ["jpeg", "jpeg-restart", "jpeg-12"]:
    save("jpeg_scan", name, FILMS[name])
    save("dicom_structure", name, FILMS[name])

manifest = json.loads((HERE / "../../models/ceph19-nfdp/manifest.json").read_text())
save("manifest", "own", json.dumps(manifest, indent=1).encode())
save("manifest", "short", json.dumps(manifest, separators=(",", ":")).encode())

def archive(files, **entry):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in entry.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue().rstrip(b"\0") + bytes(1024)


network, golden = b"a network", png()
manifest.update(name="fuzz", version="1.2.3")
manifest["network"].update(file="network.onnx", sha256=hashlib.sha256(network).hexdigest())
manifest["golden"].update(file="golden.png", sha256=hashlib.sha256(golden).hexdigest())
text = json.dumps(manifest, separators=(",", ":")).encode()
bundle = {"manifest.json": text, "README.md": b"# Card\n", "network.onnx": network, "golden.png": golden}
save("archive", "bundle", archive(bundle))
save("archive", "compressed", gzip.compress(archive(bundle), 0, mtime=0))
save("archive", "link", archive({"README.md": b""}, type=tarfile.SYMTYPE, linkname="/etc/passwd"))
save("archive", "elsewhere", archive({"../README.md": b"# Card\n"}))
save("archive", "five", archive(bundle | {"more": b""}))

# Of the bytes "a bundle", by a key whose private half was thrown away.
signature = """untrusted comment: untrusted
RURRuGGQvChiELaFuuaVyxDuwqlcxFEw1AEF2iIFc0RfWkqLeKgbWrQ/oEr4r2kd8I9JokWz85l1aA0tSThA7uFdGJ1wyUGuSAw=
trusted comment: landmarkd bundle fuzz 1.2.3
YmeXV4UovhfMZtVHrPS4W75dN216glPjZUrws5TaZCH/uu8scnkm7xo+A7+O35AqE+K46ani3eIiXRz04877Cw==
"""
save("signature", "good", signature.encode())
save("signature", "another", signature.replace("1.2.3", "1.2.4").encode())

request = b'{"epoch":"e","from":"1","to":"00000000000000000003"}'
save("command", "plain", b"\0\0" + request)
save("command", "where", b"archive/answers\0" + bytes(range(1, 17)) + b"\0" + request)
save("command", "forbidden", b"xr/v1/s/d/status\0\0" + request)
save("command", "wide", b"\0\0" + b'{"epoch":"e","from":"2","to":"18446744073709551615"}')
save("command", "epoch", b"\0\0" + b'{"epoch":"f","from":"0","to":"1"}')

config = (HERE / "../../systemd/etc/landmarkd/landmarkd.toml").read_text()
lines = [line for line in config.splitlines() if line and not line.startswith("# ")]
save("config", "required", "\n".join(line for line in lines if not line.startswith("#")).encode())
every_key = "\n".join(line.removeprefix("#") for line in lines)
# Norms with ranges need a name of their own.
save("config", "every-key", every_key.replace('norms = "isbi2015"', 'norms = "own"').encode())
save("config", "variable", b'[site]\nname = "a"\ndevice = "b"\n\0LANDMARKD_ACQUISITION__FOLDER=/srv/films')
save("config", "wrong", b'[acquisition]\nfolder = 3\nresacn_s = "x"\n[[site]]\n[mqtt.x]\ny=1\n\0LANDMARKD_MQTT_PORT=1')

record = b"\x01" + bytes(range(32)) + struct.pack("<q", 1_700_000_000_123) + b'{"data":{}}'
save("record", "event", record)
save("record", "before-1970", record[:33] + struct.pack("<q", -(1 << 62)) + record[41:])
save("record", "newer", b"\x02" + record[1:])
save("record", "cut", record[:40])

for name, head in [
    ("get", "GET / HTTP/1.1\r\nHost: localhost:9464\r\n\r\n"),
    ("head", "HEAD /metrics?x=1 HTTP/1.0\r\nhost: 127.0.0.1\r\nAccept: */*\r\n\r\n"),
    ("absolute", "GET http://ceph-1.clinic.example/overlay/3.png HTTP/1.1\r\nHost: [::1]:9464\r\n\r\n"),
    ("two-hosts", "GET / HTTP/1.1\r\nHost: localhost\r\nHost: elsewhere\r\n\r\n"),
    ("post", "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"),
    ("version", "GET / HTTP/2.0\r\nHost: localhost\r\n\r\n"),
    ("cut", "GET / HTTP/1.1\r\nHost: localh"),
]:
    save("http_head", name, head.encode())
