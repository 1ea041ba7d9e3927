#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""--device cuda where no card can be used: every verb that computes says so, names --device cpu, and
leaves nothing behind."""
import os

import tiny

# Hides a card where there is one.
BLIND = tiny.environment(CUDA_VISIBLE_DEVICES="")


def refuse(what, *args, says=b"use --device cpu", env=BLIND, status=1):
    done = tiny.run(*args, env=env)
    good = done.returncode == status and says in done.stderr and not tiny.complaint(done)
    tiny.check(what, good, done)


def main():
    work = tiny.work_dir()
    trained = tiny.run(*tiny.train_args(work, "run", "--steps", 1))
    if not tiny.check("train", trained.returncode == 0, trained.stderr):
        tiny.finish()
    model, index, out = f"{work}/logs/run/model", f"{work}/index", f"{work}/new"
    built = tiny.run("index", "build", "-m", model, "-d", f"{work}/pictures", "-o", index)
    tiny.check("index build", built.returncode == 0, built.stderr)
    classes, picture = f"{work}/classes.txt", f"{work}/pictures/000.png"
    with open(classes, "w", encoding="utf-8") as f:
        f.write("cat\ndog\n")
    verbs = {
        "embed a text": ("embed", "-m", model, "-t", "red"),
        "embed a corpus": ("embed", "-m", model, "-d", f"{work}/pictures", "-o", out),
        "index build": ("index", "build", "-m", model, "-d", f"{work}/pictures", "-o", out),
        "search": ("search", "-i", index, "red"),
        "serve": ("serve", index, "-p", 0),
        "eval": ("eval", "-m", model, "--val-data", f"{work}/tiny.tar"),
        "eval --task": ("eval", "-m", model, "--task", "zeroshot_retrieval", "--val-data",
                        f"{work}/tiny.tar"),
        "classify": ("classify", "-m", model, "-c", classes, picture),
        "train": tiny.train_args(work, "other"),
    }
    for what, args in verbs.items():
        refuse(what, *args, "--device", "cuda")
    refuse("by a variable", *verbs["search"], env=dict(BLIND, TESSERA_DEVICE="cuda"))
    for what in ("embed a text", "index build", "search", "serve"):
        refuse(f"{what} in 8 bits", *verbs[what], "--device", "cuda", "--precision", "int8",
               says=b"8-bit weights are packed for the processor")
    refuse("another device", *verbs["search"], "--device", "tpu", says=b"--device", status=2)
    tiny.check("nothing is left", not os.path.exists(out) and not os.path.exists(f"{work}/logs/other"))
    done = tiny.run(*verbs["classify"], "--device", "cpu", env=BLIND)
    tiny.check("--device cpu works", done.returncode == 0, done.stderr)
    tiny.remove(work)
    tiny.finish()


main()
