#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Reads the event files of a directory with nothing but struct, and checks them.

Frames, both checksums, the version first, steps that never go back, no step twice for one tag.
"""
import pathlib
import struct
import sys

TABLE = []
for i in range(256):
    c = i
    for _ in range(8):
        c = (c >> 1) ^ (0x82F63B78 if c & 1 else 0)
    TABLE.append(c)


def masked(data):
    c = 0xFFFFFFFF
    for b in data:
        c = TABLE[(c ^ b) & 255] ^ (c >> 8)
    c ^= 0xFFFFFFFF
    return (((c >> 15) | (c << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def frames(data):
    at = 0
    while at < len(data):
        head = data[at:at + 8]
        (n,) = struct.unpack("<Q", head)
        (crc,) = struct.unpack("<I", data[at + 8:at + 12])
        assert crc == masked(head), "checksum of a length"
        body = data[at + 12:at + 12 + n]
        assert len(body) == n, "torn record"
        (crc,) = struct.unpack("<I", data[at + 12 + n:at + 16 + n])
        assert crc == masked(body), "checksum of a record"
        yield body
        at += 16 + n


def varint(data, at):
    v = shift = 0
    while True:
        b = data[at]
        at += 1
        v |= (b & 127) << shift
        shift += 7
        if b < 128:
            return v, at


def fields(data):
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        field, wire = key >> 3, key & 7
        if wire == 0:
            v, at = varint(data, at)
        elif wire == 1:
            v, at = struct.unpack("<d", data[at:at + 8])[0], at + 8
        elif wire == 5:
            v, at = struct.unpack("<f", data[at:at + 4])[0], at + 4
        else:
            assert wire == 2, f"wire type {wire}"
            n, at = varint(data, at)
            v, at = data[at:at + n], at + n
        yield field, v


def check(path):
    events = [dict(fields(body)) for body in frames(path.read_bytes())]
    assert events[0][3] == b"brain.Event:2" and 5 not in events[0], "version first"
    last, seen, n = 0, set(), 0
    for event in events[1:]:
        step = event.get(2, 0)
        assert step >= last, f"step {step} after {last}"
        last = step
        assert event[1] > 1.6e9, "wall time"
        for field, value in fields(event[5]):
            value = dict(fields(value))
            tag = value[1].decode()
            assert field == 1 and set(value) == {1, 2}, "a tag and a value"
            assert (step, tag) not in seen, f"{tag} twice at step {step}"
            seen.add((step, tag))
            n += 1
    return n


files = sorted(pathlib.Path(sys.argv[1]).glob("events.out.tfevents.*"))
assert files, "no event file"
assert all(check(f) > 0 for f in files), "no scalars"
