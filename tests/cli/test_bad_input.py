#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Bad input through the program: each is one clear message and exit status 1, or a counted and named
skip; never a crash, a hang, something half-written, or silence."""
import glob
import io
import json
import os
import shutil
import struct
import tarfile

import tiny

LIMIT = 20


def refused(what, words, *args):
    """Exit status 1, a message that has all the words."""
    done = tiny.run(*args, limit=LIMIT)
    problem = tiny.complaint(done)
    if not problem:
        missing = [w for w in words if w not in done.stderr.decode(errors="replace")]
        problem = f"{missing} not in {done.stderr[-500:]!r}" if missing else ""
    tiny.check(what, not problem, problem)


def skipped(what, n, names, work, data, *more):
    """An index of it is built, n pictures are left out, and the names are said."""
    out = f"{work}/skipped"
    args = ["index", "build", "--model", f"{work}/logs/run/model", "--data", data, "--out", out,
            *more]
    done = tiny.run(*args, limit=LIMIT)
    text = done.stdout.decode(errors="replace")
    missing = [w for w in names if w not in text]
    good = done.returncode == 0 and not missing and not any(w in done.stderr
                                                            for w in tiny.SANITIZED)
    tiny.check(f"{what}: left out by name", good,
               f"{done.returncode}, without {missing}: {text[-700:]} {done.stderr[-2000:]!r}")
    done = tiny.run(*args, "--replace", "--json", limit=LIMIT)
    left = json.loads(done.stdout)["left_out"] if done.returncode == 0 else None
    tiny.check(f"{what}: {n} left out", left == n, f"{left}: {done.stderr[-500:]!r}")
    tiny.remove(out)


def write(path, data):
    with open(path, "wb") as f:
        f.write(data)


def read(path):
    with open(path, "rb") as f:
        return f.read()


# ---- pictures -----------------------------------------------------------------------------------

def pictures(work):
    good = read(f"{work}/pictures/000.png")
    huge = good[:16] + struct.pack(">II", 1 << 30, 1 << 30) + good[24:]
    bad = {"cut.png": good[:len(good) // 2], "empty.png": b"", "html.jpg": b"<html>not found</html>",
           "huge.png": huge, "noise.webp": b"RIFF\xff\xff\xff\x7fWEBPVP8 " + bytes(range(256)),
           "head.png": good[:8], "text.jpeg": b"\xff\xd8\xff\xe0" + b"x" * 500}
    folder = f"{work}/bad_pictures"
    shutil.copytree(f"{work}/pictures", folder)
    for name, data in bad.items():
        write(f"{folder}/{name}", data)
        write(f"{folder}/{name.split('.')[0]}.txt", b"a caption")
    shutil.copy(f"{work}/pictures/001.png", f"{folder}/mislabelled.jpg")
    skipped("damaged pictures", len(bad), [n.split(".")[0] for n in list(bad)[:4]], work, folder)
    for name in bad:
        refused(f"search by {name}", [name], "embed", "--model", f"{work}/logs/run/model",
                "--image", f"{folder}/{name}")
    done = tiny.run("dataset", "check", "--json", folder, limit=LIMIT)
    tiny.check("dataset check counts them", done.returncode == 0, done.stderr)
    done = tiny.run(*tiny.train_args(work, "with_bad"), "--train-data", folder, "--max-bad-rate", 1,
                    limit=LIMIT)
    tiny.check("training goes on without them", done.returncode == 0, done.stderr)
    with open(f"{work}/logs/with_bad/out.log", encoding="utf-8") as f:
        log = f.read()
    tiny.check("and counts them", "left out:" in log and "decode" in log, log[-500:])
    only = f"{work}/only_bad"
    os.mkdir(only)
    for i in range(12):
        write(f"{only}/{i}.png", b"nothing")
        write(f"{only}/{i}.txt", b"a caption")
    refused("nothing but damaged pictures", [], *tiny.train_args(work, "only_bad"), "--train-data",
            only, "--epochs", 0)
    refused("a search by a picture that is not there", ["none.png"], "embed", "--model",
            f"{work}/logs/run/model", "--image", f"{work}/none.png")


# ---- tars ---------------------------------------------------------------------------------------

def tars(work):
    whole = read(f"{work}/tiny.tar")
    write(f"{work}/cut.tar", whole[:len(whole) // 2 + 700])
    skipped("a tar cut in the middle", 1, ["cut.tar"], work, f"{work}/cut.tar")
    wrong = bytearray(whole)
    wrong[2048 * 5 + 124:2048 * 5 + 135] = b"00000777777"
    write(f"{work}/wrong.tar", bytes(wrong))
    done = tiny.run("dataset", "check", f"{work}/wrong.tar", limit=LIMIT)
    tiny.check("a tar with a wrong size is said", done.returncode in (0, 1) and
               b"wrong.tar" in done.stdout + done.stderr, done.stdout[-300:] + done.stderr[-300:])
    escaping = io.BytesIO()
    with tarfile.open(fileobj=escaping, mode="w") as tar:
        for name in ("../../up", "/etc/absolute", "a/../../b"):
            for suffix, data in ((".png", read(f"{work}/pictures/000.png")), (".txt", b"a caption")):
                info = tarfile.TarInfo(name + suffix)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    write(f"{work}/escape.tar", escaping.getvalue())
    done = tiny.run("dataset", "check", f"{work}/escape.tar", limit=LIMIT)
    tiny.check("names that escape", done.returncode in (0, 1), done.stderr)
    written = [p for p in (f"{work}/../../up.png", "../../up.png", "/etc/absolute.png",
                           f"{work}/../b.png", "../b.png") if os.path.exists(p)]
    tiny.check("write nothing", not written, written)
    for path in sorted(glob.glob("tests/fixtures/train/tar/*.tar")):
        done = tiny.run("dataset", "check", path, limit=LIMIT)
        said = (done.stdout + done.stderr).strip()
        tiny.check(f"{os.path.basename(path)}: a report or a message",
                   done.returncode in (0, 1) and said and
                   (done.returncode == 0 or not tiny.complaint(done)),
                   f"{done.returncode} {tiny.complaint(done)}")
    refused("no tar", ["Makefile.tar"], *tiny.train_args(work, "no"), "--train-data",
            "Makefile.tar")


# ---- captions -----------------------------------------------------------------------------------

def captions(work):
    folder = f"{work}/bad_captions"
    os.mkdir(folder)
    texts = {"latin": b"caf\xe9 \xff\xfe", "empty": b"", "blank": b" \n\t ", "nul": b"a\0b",
             "long": b"word " * 1000000, "overlong": b"\xc0\xaf", "surrogate": b"\xed\xa0\x80"}
    for i in range(30):
        shutil.copy(f"{work}/pictures/{i:03d}.png", folder)
        write(f"{folder}/{i:03d}.txt", f"caption number {i}".encode())
    for name, text in texts.items():
        shutil.copy(f"{work}/pictures/000.png", f"{folder}/{name}.png")
        write(f"{folder}/{name}.txt", text)
    done = tiny.run("dataset", "check", folder, limit=LIMIT)
    out = done.stdout.decode(errors="replace")
    tiny.check("bad captions are counted", done.returncode == 0 and "latin" in out, out[-900:])
    done = tiny.run(*tiny.train_args(work, "bad_captions"), "--train-data", folder,
                    "--max-bad-rate", 1, limit=LIMIT)
    tiny.check("training leaves them out", done.returncode == 0, done.stderr)
    for name, text in (("empty", ""), ("blank", "   ")):
        refused(f"a search for {name} text", [], "embed", "--model", f"{work}/logs/run/model",
                "--text", text)
    done = tiny.run("embed", "--model", f"{work}/logs/run/model", "--text", b"\xff\xfe",
                    limit=LIMIT)
    tiny.check("a search for bytes that are no text", done.returncode in (1, 2) and
               not tiny.complaint(done), f"{done.returncode} {done.stderr!r}")
    for name, line in (("broken", b'{"filepath": '), ("deep", b"[" * 100000),
                       ("number", b"17"), ("nul", b'{"filepath": "a\\u0000b", "caption": "x"}')):
        write(f"{work}/{name}.jsonl", line + b"\n")
        done = tiny.run("dataset", "check", f"{work}/{name}.jsonl", limit=LIMIT)
        tiny.check(f"JSON lines: {name}", done.returncode in (0, 1) and
                   f"{name}.jsonl".encode() in done.stdout + done.stderr,
                   f"{done.returncode} {done.stdout[-200:]!r} {done.stderr[-300:]!r}")


# ---- models -------------------------------------------------------------------------------------

def weights_of(header, data, n=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if n is None else n) + text + data


def models(work):
    model, bad = f"{work}/logs/run/model", f"{work}/bad_model"
    whole = read(f"{model}/open_clip_model.safetensors")
    n = struct.unpack("<Q", whole[:8])[0]
    header, data = json.loads(whole[8:8 + n]), whole[8 + n:]

    def changed(name, **fields):
        return weights_of({**header, name: {**header[name], **fields}}, data)
    name = "visual.conv1.weight"
    first, second = header[name]["data_offsets"]
    hostile = {
        "empty": b"", "cut": whole[:len(whole) // 2], "a short header": whole[:20],
        "text": b"PK\3\4 this is a zip" * 20, "a longer header": weights_of(header, data, 1 << 40),
        "a header beyond 2^63": weights_of(header, data, (1 << 64) - 1),
        "no object": weights_of(b"[1,2,3]", data), "deep": weights_of(b'{"a":' * 50000, data),
        "a key twice": weights_of(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
                                  b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', b"1234"),
        "overlapping": changed(name, data_offsets=[first + 4, second + 4]),
        "backwards": changed(name, data_offsets=[second, first]),
        "beyond the end": changed(name, data_offsets=[first, 1 << 62]),
        "negative": changed(name, data_offsets=[-4, second]),
        "overflowing": changed(name, shape=[1 << 32, 1 << 32, 1 << 32, 4]),
        "another shape": changed(name, shape=[1, (second - first) // 4]),
        "an unknown type": changed(name, dtype="F99"),
        "a tensor less": weights_of({k: v for k, v in header.items() if k != name}, data),
        "trailing bytes": whole + b"1234",
    }
    shutil.copytree(model, bad)
    for what, content in hostile.items():
        write(f"{bad}/open_clip_model.safetensors", content)
        refused(f"weights: {what}", ["open_clip_model.safetensors"], "embed", "--model", bad,
                "--text", "x")
    refused("no model directory", [f"{work}/none"], "embed", "--model", f"{work}/none", "--text",
            "x")

    spm = read(f"{work}/spm.model")
    for what, content in {"empty": b"", "text": b"not a model\n" * 50, "cut": spm[:5000],
                          "noise": bytes((i * 37) & 255 for i in range(9000)),
                          "another": read("tests/fixtures/text/unigram_spaces.model")}.items():
        write(f"{work}/bad.model", content)
        refused(f"tokenizer: {what}", ["bad.model"], *tiny.train_args(work, "bad_spm"),
                "--tokenizer", f"{work}/bad.model")
        tiny.check(f"tokenizer: {what}: no run is begun", not os.path.exists(
            f"{work}/logs/bad_spm/checkpoints"))


def configs(work):
    with open(f"{work}/model.json", encoding="utf-8") as f:
        good = json.load(f)

    def having(path, value):
        copy = json.loads(json.dumps(good))
        at = copy
        for key in path[:-1]:
            at = at.setdefault(key, {})
        at[path[-1]] = value
        return json.dumps(copy).encode()
    cases = {
        "an unknown key at the top": (having(["modle"], 1), "modle"),
        "in model_cfg": (having(["model_cfg", "embed_dims"], 1), "embed_dims"),
        "in vision_cfg": (having(["model_cfg", "vision_cfg", "widht"], 1), "widht"),
        "in text_cfg": (having(["model_cfg", "text_cfg", "hedas"], 1), "hedas"),
        "in preprocess_cfg": (having(["preprocess_cfg", "men"], 1), "men"),
        "in tessera": (having(["tessera", "text_txt"], {}), "text_txt"),
        "a string for a number": (having(["model_cfg", "embed_dim"], "32"), "embed_dim"),
        "a number out of range": (having(["model_cfg", "embed_dim"], -1), "embed_dim"),
        "a width that does not divide": (having(["model_cfg", "vision_cfg", "width"], 33), "width"),
        "a model beyond memory": (having(["model_cfg", "vision_cfg", "layers"], 1025), "layers"),
        "nothing": (b"", ""), "half": (json.dumps(good).encode()[:100], ""),
        "no JSON": (b"model: small\n", ""), "deep": (b'{"model_cfg":' * 50000, ""),
        "a list": (b"[]", ""),
    }
    for what, (content, word) in cases.items():
        write(f"{work}/bad.json", content)
        refused(f"config: {what}", ["bad.json", word], *tiny.train_args(work, "bad_config"),
                "--model", f"{work}/bad.json", "--tokenizer", f"{work}/spm.model")
    tiny.check("no run is begun", not os.path.exists(f"{work}/logs/bad_config"))


def checkpoints(work):
    other = tiny.run(*tiny.train_args(work, "wide"), "--model", f"{work}/wide.json")
    tiny.check("a wider model", other.returncode == 0, other.stderr)
    before = tiny.tree(f"{work}/logs/run")
    refused("a checkpoint of another model", ["step_00000012"], *tiny.train_args(
        work, "run", "--resume", f"{work}/logs/wide/checkpoints/step_00000012"))
    refused("no checkpoint", ["logs/run/model"], *tiny.train_args(
        work, "run", "--resume", f"{work}/logs/run/model"))
    refused("a run that is there", ["--resume"], *tiny.train_args(work, "run"))
    tiny.check("and it is as it was", tiny.tree(f"{work}/logs/run") == before)
    args = [a for a in tiny.train_args(work, "x", "--resume", "latest") if a not in ("--name", "x")]
    refused("--resume without --name", ["--name"], *args)


def main():
    work = tiny.work_dir()
    os.chdir(tiny.ROOT)
    done = tiny.run(*tiny.train_args(work, "run"))
    if tiny.check("train", done.returncode == 0, done.stderr):
        for part in (pictures, tars, captions, models, configs, checkpoints):
            part(work)
    tiny.remove(work)
    tiny.finish()


main()
