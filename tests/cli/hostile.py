# SPDX-License-Identifier: Apache-2.0
"""What the tests of hostile model directories share: a run of the program with its time and memory,
copies of the small models to damage, and safetensors in and out."""
import json
import os
import shutil
import struct
import subprocess
import tempfile
import threading

import tiny

FORMATS = "tests/fixtures/formats"
SENTENCE = "tests/fixtures/sentence"
BASES = {
    "openclip": f"{FORMATS}/openclip_tok", "timm": f"{FORMATS}/openclip_siglip",
    "clip": f"{FORMATS}/hf_clip", "shards": f"{FORMATS}/hf_clip_half",
    "siglip": f"{FORMATS}/hf_siglip", "bert": f"{SENTENCE}/bert", "xlmr": f"{SENTENCE}/xlmr",
    "st": f"{SENTENCE}/st_mean", "dense": f"{SENTENCE}/st_dense",
}
SECONDS, MEGABYTES = 10, 900
SLOW = 1  # times SECONDS and MEGABYTES; a sanitized program is slower and larger


class Ended:
    """How a run ended: status, output, seconds of processor time, megabytes at most."""

    def __init__(self, *args, limit=60):
        out, err = tempfile.TemporaryFile(), tempfile.TemporaryFile()
        child = subprocess.Popen([tiny.TESSERA, *args], stdin=subprocess.DEVNULL, stdout=out,
                                 stderr=err, env=tiny.environment())
        timer = threading.Timer(limit, child.kill)
        timer.start()
        _, status, used = os.wait4(child.pid, 0)
        timer.cancel()
        child.returncode = self.returncode = os.waitstatus_to_exitcode(status)
        self.seconds, self.megabytes = used.ru_utime + used.ru_stime, used.ru_maxrss / 1024
        out.seek(0)
        err.seek(0)
        self.stdout, self.stderr = out.read(), err.read()


def problem(done, words):
    """Why this is not one clear refusal that has all the words within the bounds; '' when it is."""
    wrong = tiny.complaint(done)
    if wrong:
        return wrong
    said = done.stderr.decode(errors="replace")
    missing = [w for w in words if w not in said]
    if missing:
        return f"{missing} not in {said[-700:]!r}"
    if done.seconds > SECONDS * SLOW:
        return f"took {done.seconds:.1f} s"
    return f"took {done.megabytes:.0f} MB" if done.megabytes > MEGABYTES * SLOW else ""


def copy(base, to):
    tiny.remove(to)
    shutil.copytree(BASES[base], to, ignore=shutil.ignore_patterns("expected.safetensors"))


def read(path):
    with open(path, "rb") as f:
        return f.read()


def write(path, data):
    with open(path, "wb") as f:
        f.write(data if isinstance(data, bytes) else data.encode())


def weights_name(model):
    for name in ("open_clip_model.safetensors", "model.safetensors"):
        if os.path.exists(f"{model}/{name}"):
            return name
    return "model-00001-of-00002.safetensors"


def load(path):
    """The header, an ordered object, and the data of a safetensors file."""
    whole = read(path)
    n = struct.unpack("<Q", whole[:8])[0]
    return json.loads(whole[8:8 + n]), whole[8 + n:]


def packed(header, data, pad=0):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * pad
    return struct.pack("<Q", len(text)) + text + data


def tensors_of(path):
    """name -> [dtype, shape, bytes]"""
    header, data = load(path)
    return {name: [t["dtype"], t["shape"], data[slice(*t["data_offsets"])]]
            for name, t in header.items() if name != "__metadata__"}


def save(path, tensors, pad=0):
    header, at = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    write(path, packed(header, b"".join(t[2] for t in tensors.values()), pad))
