#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A memory limit: training whose states lie in files gives the bytes of training in memory, within
the limit; goes on from either's checkpoints; and is refused with what would do.

A model of 6 M parameters, 96 MB of states, in a limit that leaves room for a tenth of them.
"""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import tiny

LIMIT = 100 << 20
with open(tiny.TESSERA, "rb") as program:
    SANITIZED = b"__asan" in program.read()


def make_model(work):
    with open(f"{work}/model.json", encoding="utf-8") as f:
        config = json.load(f)
    towers = config["model_cfg"]
    towers["embed_dim"] = 64
    towers["vision_cfg"].update(width=256, layers=4, head_width=64, mlp_ratio=4)
    towers["text_cfg"].update(width=256, heads=4, layers=2, mlp_ratio=4)
    with open(f"{work}/big.json", "w", encoding="utf-8") as f:
        json.dump(config, f)


def arguments(work, name, *more):
    return ["train", "--train-data", f"{work}/tiny.tar", "--model", f"{work}/big.json", "--logs",
            f"{work}/logs", "--name", name, "--batch-size", 4, "--accum-freq", 2, "--lr", 2e-3,
            "--steps", 4, "--save-every-n-steps", 2, "--grad-clip-norm", 1, "--seed", 1, "--quiet",
            "-j", 1, "--log-every-n-steps", 1, *more]


def anonymous(pid):
    """Bytes of memory that are no file's: what files have mapped, the kernel takes when it likes."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8") as f:
            found = re.search(r"RssAnon:\s+(\d+)", f.read())
    except OSError:
        return 0
    return int(found.group(1)) << 10 if found else 0


def watched(work, name, *more):
    """A run's end, its last words, and the most memory it was seen with."""
    child = subprocess.Popen([tiny.TESSERA, *map(str, arguments(work, name, *more))],
                             stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                             stderr=subprocess.PIPE, env=tiny.environment())
    most = 0
    while child.poll() is None:
        most = max(most, anonymous(child.pid))
        time.sleep(0.005)
    return child.returncode, child.stderr.read().decode(errors="replace"), most


def results(work, name):
    path = f"{work}/logs/{name}"
    losses = []
    if os.path.exists(f"{path}/metrics.jsonl"):
        with open(f"{path}/metrics.jsonl", encoding="utf-8") as f:
            losses = [(line["train/loss"], line["train/grad_norm"]) for line in map(json.loads, f)
                      if "train/loss" in line]
    return tiny.tree(f"{path}/checkpoints/step_00000004"), tiny.tree(f"{path}/model"), losses


def same_bytes(work):
    whole = watched(work, "whole")
    limited = watched(work, "limited", "--memory-limit", LIMIT, "--offload-dir", f"{work}/scratch")
    tiny.check("both runs end well", whole[0] == limited[0] == 0, (whole, limited))
    tiny.check("checkpoint, model and losses are those of memory",
               results(work, "limited") == results(work, "whole") and results(work, "whole")[2],
               "files or losses differ")
    tiny.check("the limit holds", SANITIZED or 0 < limited[2] <= LIMIT, limited[2])
    tiny.check("without it there is more", SANITIZED or whole[2] > LIMIT, whole[2])
    tiny.check("no file is left", os.listdir(f"{work}/scratch") == [], "scratch")
    with open(f"{work}/logs/limited/out.log", encoding="utf-8") as f:
        tiny.check("the log says what stays in memory",
                   re.search(r"memory limit 100 MiB: .*in memory stay, in MiB: param \d+ of 2\d, "
                             r"grad \d+ of 2\d, m 0 of 2\d, v 0 of 2\d", f.read()), "out.log")


def copy_run(work, name, of):
    """The run as it was after two updates."""
    shutil.copytree(f"{work}/logs/{of}", f"{work}/logs/{name}")
    shutil.rmtree(f"{work}/logs/{name}/checkpoints/step_00000004")
    shutil.rmtree(f"{work}/logs/{name}/model")


def either_goes_on(work):
    # A sanitizer has memory of its own, which grows while a checkpoint is opened.
    limit = "160M" if SANITIZED else LIMIT
    for name, of, more in (("on", "whole", ["--memory-limit", limit]), ("back", "limited", [])):
        copy_run(work, name, of)
        code, error, _ = watched(work, name, "--resume", "latest", *more)
        tiny.check(f"{name}: ends well", code == 0, error)
        tiny.check(f"{name}: the same bytes", results(work, name)[:2] == results(work, "whole")[:2],
                   "files differ")


def in_bf16(work):
    more = ["--precision", "bf16", "--stochastic-rounding", "--lock-text", "--grad-checkpointing"]
    for name, limit in (("bf16", []), ("bf16-limited", ["--memory-limit", "95M"])):
        code, error, _ = watched(work, name, *more, *limit)
        tiny.check(f"{name}: ends well", code == 0, error)
    tiny.check("bf16, a locked tower, rounding by chance: the same bytes",
               results(work, "bf16-limited") == results(work, "bf16"), "files or losses differ")


def refused(work):
    run = tiny.run(*arguments(work, "small", "--memory-limit", "40M"))
    least = re.search(rb"a memory limit of 40 MiB does not hold this run: (\d+) MiB is the least",
                      run.stderr)
    tiny.check("too small a limit is refused", run.returncode == 1 and least, run.stderr)
    tiny.check("and leaves no run", not os.path.exists(f"{work}/logs/small"), "logs/small")
    if least:
        code, error, _ = watched(work, "least", "--memory-limit", f"{int(least.group(1)) + 4}M")
        tiny.check("what it names does", code == 0, error)
    for what, code, word, more in (
            ("Muon", 1, b"Muon", ["--memory-limit", LIMIT, "--opt", "muon"]),
            ("a word", 2, b"expected bytes", ["--memory-limit", "many"]),
            ("nothing", 2, b"expected bytes", ["--memory-limit", "0"]),
            ("a directory alone", 2, b"needs --memory-limit", ["--offload-dir", work]),
            ("no directory", 1, b"/proc/none",
             ["--memory-limit", LIMIT, "--offload-dir", "/proc/none"])):
        run = tiny.run(*arguments(work, "bad", *more))
        tiny.check(f"{what} is refused", run.returncode == code and word in run.stderr, run.stderr)


def killed(work):
    """What is killed leaves nothing in the directory."""
    child = subprocess.Popen([tiny.TESSERA, *map(str, arguments(
        work, "killed", "--memory-limit", LIMIT, "--offload-dir", f"{work}/scratch"))],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=tiny.environment())
    end = time.monotonic() + 60
    while not os.path.exists(f"{work}/logs/killed") and time.monotonic() < end:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    tiny.check("nothing is left of a killed run's states", os.listdir(f"{work}/scratch") == [],
               os.listdir(f"{work}/scratch"))


def main():
    work = tiny.work_dir()
    try:
        make_model(work)
        same_bytes(work)
        either_goes_on(work)
        in_bf16(work)
        refused(work)
        killed(work)
    finally:
        shutil.rmtree(work)
    tiny.finish()


if __name__ == "__main__":
    sys.exit(main())
