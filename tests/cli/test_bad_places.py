#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Hostile places: model directories that are none, the same broken model through every verb, adapters,
packed files and lists that are damaged, and verbs that are interrupted.  What a verb writes is there
whole or not at all."""
import json
import os
import signal
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import hostile  # noqa: E402
import tiny  # noqa: E402
from hostile import load, packed, read, save, tensors_of, write  # noqa: E402

PICTURE = "tests/fixtures/vision/jpeg_420_q90.jpg"
PEFT = "tests/fixtures/fusion/lora_hf"


def refused(what, words, *args):
    wrong = hostile.problem(hostile.Ended(*args), words)
    tiny.check(what, not wrong, wrong)


def opens(what, *args):
    done = hostile.Ended(*args)
    good = done.returncode == 0 and not any(w in done.stderr for w in tiny.SANITIZED)
    tiny.check(what, good, f"{done.returncode} {done.stderr[-900:]}")
    return done.stdout


def embed(model, *more):
    return ["embed", "--model", model, "--text", "a red cat", *more]


# ---- where a model is -----------------------------------------------------------------------------

def places(work):
    refused("a model that is a file", ["Makefile", "a file"], *embed("Makefile"))
    refused("a model that is not there", ["none", "nothing"], *embed(f"{work}/none"))
    os.mkdir(f"{work}/empty")
    refused("an empty directory", ["no model here"], *embed(f"{work}/empty"))
    os.symlink("loop", f"{work}/loop")
    refused("a loop of links", ["loop"], *embed(f"{work}/loop"))
    refused("a name of 5000 letters", ["aaa"], *embed("a" * 5000))
    refused("no name", [], *embed(""))
    for i, name in enumerate(("a model", "modèle ☃", "two\nlines", "-m", "%s%n", "a'b\"c")):
        for base in ("openclip", "st"):
            model = f"{work}/{name}"
            hostile.copy(base, model)
            opens(f"{base} in {name!r}", *embed(model))
            os.remove(f"{model}/{hostile.weights_name(model)}")
            refused(f"{base} in {name!r}, without weights", [name], *embed(model))
    if os.geteuid() != 0:
        os.chmod(f"{work}/empty", 0)
        refused("a directory that may not be read", ["empty"], *embed(f"{work}/empty"))
        os.chmod(f"{work}/empty", 0o700)


# ---- every verb -----------------------------------------------------------------------------------

def verbs(work):
    write(f"{work}/classes.txt", "cat\ndog\n")
    out = f"{work}/never"
    for base in ("openclip", "clip", "siglip", "st"):
        model = f"{work}/broken"
        hostile.copy(base, model)
        path = f"{model}/{hostile.weights_name(model)}"
        tensors = tensors_of(path)
        lost = next(n for n, t in tensors.items() if len(t[1]) == 2)
        del tensors[lost]
        save(path, tensors)
        runs = {
            "embed": embed(model), "pack": ["pack", "-m", model],
            "classify": ["classify", "-m", model, "-c", f"{work}/classes.txt", PICTURE],
            "convert": ["convert", "-m", model, "--to", "hf", "-o", out],
            "export": ["export", "onnx", "-m", model, "-o", out],
            "merge": ["lora", "merge", "-m", model, "--adapter", PEFT, "-o", out],
            "index": ["index", "build", "--model", model, "--data", f"{work}/pictures", "--out", out],
            "eval": ["eval", "-m", model, "--val-data", f"{work}/tiny.tar"],
            "train": ["train", "--train-data", f"{work}/tiny.tar", "--model", model, "--logs",
                      f"{work}/logs", "--name", "never", "--batch-size", "8", "--steps", "1"],
        }
        for verb, args in runs.items():
            pictures = base == "st" and verb not in ("embed", "pack", "index", "export")
            refused(f"{verb}: {base} without a tensor", [] if pictures or base == "st" else [lost],
                    *args)
            tiny.check(f"{verb}: {base}: nothing is written", not os.path.exists(out) and
                       not os.path.exists(f"{work}/logs/never"))


# ---- adapters ---------------------------------------------------------------------------------------

def adapters(work):
    model, adapter = hostile.BASES["clip"], f"{work}/adapter"
    weights, config = f"{adapter}/adapter_model.safetensors", f"{adapter}/adapter_config.json"
    whole = read(f"{PEFT}/adapter_model.safetensors")
    good = json.loads(read(f"{PEFT}/adapter_config.json"))
    os.mkdir(adapter)
    args = embed(model, "--adapter", adapter)
    refused("an empty adapter", ["adapter"], *args)
    write(weights, whole)
    for key, value in (("r", 0), ("r", -1), ("r", 2**40), ("r", "4"), ("r", 4.5), ("lora_alpha", "x"),
                       ("lora_alpha", None), ("peft_type", "IA3"), ("peft_type", 7),
                       ("use_dora", True), ("bias", "all"), ("target_modules", 7),
                       ("target_modules", ["nowhere"]), ("alpha_pattern", {"(((": 3}),
                       ("rank_pattern", {"q_proj": -1}), ("fan_in_fan_out", True),
                       ("modules_to_save", ["visual_projection"]), ("frobnicate", True)):
        write(config, json.dumps({**good, key: value}))
        done = hostile.Ended(*args)
        if done.returncode != 0 or key not in ("target_modules", "alpha_pattern", "rank_pattern",
                                               "frobnicate"):
            wrong = hostile.problem(done, ["adapter"])
            tiny.check(f"an adapter's {key} {json.dumps(value)[:20]}", not wrong, wrong)
    for text in ("", "[]", "{}", "17", "[" * 100000):
        write(config, text)
        refused(f"an adapter's config {text[:9]!r}", ["adapter_config.json"], *args)
    write(config, json.dumps(good))
    for what, data in (("cut", whole[:-100]), ("empty", b""), ("of nothing", packed({}, b""))):
        write(weights, data)
        refused(f"an adapter's weights {what}", ["adapter"], *args)
    first = tensors_of(f"{PEFT}/adapter_model.safetensors")
    name = sorted(first)[0]
    for what, change in (
            ("transposed", lambda t: t[1].reverse()), ("of F64", lambda t: t.__setitem__(
                slice(0, 3, 2), ["F64", t[2] * 2])),
            ("with NaN", lambda t: t.__setitem__(2, t[2][:-4] + struct.pack("<f", float("nan"))))):
        tensors = {k: [t[0], list(t[1]), t[2]] for k, t in first.items()}
        change(tensors[name])
        save(weights, tensors)
        refused(f"an adapter's tensor {what}", [name], *args)
    save(weights, {k: t for k, t in first.items() if k != name})
    refused("an adapter's half", ["adapter"], *args)
    write(weights, whole)
    for spec in (":", ":x", ":nan", ":1e999", ":-"):
        refused(f"an adapter's weight {spec}", ["adapter"], *embed(model, "--adapter", adapter + spec))


# ---- packed files -----------------------------------------------------------------------------------

def packs(work):
    model = f"{work}/packed"
    hostile.copy("openclip", model)
    opens("pack", "pack", "-m", model, "--precision", "int8", "--quiet")
    path = f"{model}/tessera_packed.bin"
    whole = read(path)
    header, data = load(path)
    before = json.loads(opens("a packed model", *embed(model)))
    meta = header["__metadata__"]
    hostile_files = {
        "empty": b"", "cut": whole[:len(whole) // 2], "text": b"no pack\n" * 9, "of another format":
        packed({**header, "__metadata__": {**meta, "tessera_pack": "2"}}, data),
        "of no mode": packed({**header, "__metadata__": {**meta, "mode": "int3"}}, data),
        "without metadata": packed({k: v for k, v in header.items() if k[0] != "_"}, data),
        "of nothing": packed({"__metadata__": meta}, b""),
        "a byte aside": packed(header, data, 1), "three bytes aside": packed(header, data, 3),
        "a directory": None,
    }
    for what, content in hostile_files.items():
        if content is None:
            os.remove(path)
            os.mkdir(path)
        else:
            write(path, content)
        done = hostile.Ended(*embed(model, "--precision", "auto"))
        if done.returncode == 0:
            found = json.loads(done.stdout)
            dot = sum(a * b for a, b in zip(found, before))
            tiny.check(f"a packed file {what}: the vector still", dot > 0.98, dot)
        else:
            wrong = hostile.problem(done, ["packed"])
            tiny.check(f"a packed file {what}", not wrong, wrong)


# ---- lists ------------------------------------------------------------------------------------------

def lists(work):
    model = hostile.BASES["openclip"]
    for what, data, words in (
            ("empty", b"", ["names.txt"]), ("blank", b" \n\t\n", ["names.txt"]),
            ("latin-1", b"caf\xe9\n", ["names.txt"]), ("UTF-16", "cat\n".encode("utf-16"),
                                                        ["names.txt"]),
            ("NUL", b"a\0b\n", ["names.txt"]), ("huge", b"x" * 80000000, [])):
        write(f"{work}/names.txt", data)
        refused(f"classes: {what}", words, "classify", "-m", model, "-c", f"{work}/names.txt",
                PICTURE)
    for what, data in (("empty", b""), ("cut", b'{"text": "a'), ("no text", b'{"txt": "a"}\n'),
                       ("a number", b'{"text": 7}\n'), ("latin-1", b'{"text": "caf\xe9"}\n'),
                       ("deep", b"[" * 100000)):
        write(f"{work}/texts.jsonl", data)
        refused(f"texts: {what}", ["texts.jsonl"], "embed", "-m", model, "--texts",
                f"{work}/texts.jsonl", "--out", f"{work}/texts-{what}", "--quiet")


# ---- interrupted ------------------------------------------------------------------------------------

def interrupted(work):
    """Stopped after ever longer times: what is there afterwards opens, or nothing is there."""
    model = f"{work}/stopped"
    out = f"{work}/half"
    verbs_of = {
        "convert": (["convert", "-m", model, "--to", "hf", "-o", out], f"{out}/config.json",
                    lambda: embed(out)),
        "export": (["export", "onnx", "-m", model, "-o", out], out, None),
        "pack": (["pack", "-m", model], f"{model}/tessera_packed.bin",
                 lambda: ["pack", "-m", model, "--check"]),
        "index": (["index", "build", "-m", model, "--data", f"{work}/pictures", "-o", out], out,
                  lambda: ["index", "info", out]),
    }
    for verb, (args, made, check) in verbs_of.items():
        for number in (signal.SIGINT, signal.SIGKILL):
            for milliseconds in (4, 9, 14, 22):
                tiny.remove(out)
                hostile.copy("openclip", model)
                child = subprocess.Popen([tiny.TESSERA, *args], stdin=subprocess.DEVNULL,
                                         stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                         env=tiny.environment())
                time.sleep(milliseconds / 1000)
                child.send_signal(number)
                said = child.communicate(timeout=60)[1]
                what = f"{verb} stopped after {milliseconds} ms by {number.name}"
                tiny.check(what, not any(w in said for w in tiny.SANITIZED), said)
                if os.path.exists(made) and check:
                    opens(f"{what}: what it left opens", *check())
                if verb == "export" and os.path.exists(out):
                    names = os.listdir(out)
                    tiny.check(f"{what}: the export is whole", "visual" in names and
                               "textual" in names, names)


def main():
    os.chdir(tiny.ROOT)
    if "san" in os.path.basename(tiny.BUILD):
        hostile.SLOW = 8
    work = tiny.work_dir()
    for part in (places, verbs, adapters, packs, lists, interrupted):
        part(work)
    tiny.remove(work)
    tiny.finish()


if __name__ == "__main__":
    main()
