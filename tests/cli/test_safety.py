#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Updates that are skipped, on 1 and 2 ranks, and ranks that are interrupted while they wait for data.

One token of a model is so large that every batch with the one caption that has it gives a loss and
a gradient that are not finite: four times in twenty updates of five to an epoch.  What is skipped,
with which samples, is the same on 1 and 2 ranks and after a resume.
"""
import io
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import time

import ranks
import tiny

sys.path.insert(0, os.path.join(tiny.ROOT, "tests/fixtures/train"))
import make_tiny  # noqa: E402

PNG_SIDE = 1500


# ---- a planted caption ---------------------------------------------------------------------------

def captions(work):
    """(key, caption) of every caption of the data."""
    with tarfile.open(f"{work}/tiny.tar") as tar:
        for member in tar:
            if member.name.endswith(".json"):
                record = json.load(io.TextIOWrapper(tar.extractfile(member), encoding="utf-8"))
                for value in record["captions"].values():
                    yield member.name[:-5], value


def planted(work):
    """A token that one caption has, and that caption's key."""
    all_captions = list(captions(work))
    text = "".join(c + "\n" for _, c in all_captions).encode()
    out = subprocess.run([tiny.TESSERA, "tokenize", "-m", f"{work}/spm.model", "--format", "ids"],
                         input=text, stdout=subprocess.PIPE, env=tiny.environment(), check=True)
    found = {}
    for (key, _), line in zip(all_captions, out.stdout.decode().splitlines()):
        for token in re.findall(r"\d+", line):
            found.setdefault(int(token), set()).add(key)
    return next((t, next(iter(k))) for t, k in sorted(found.items()) if len(k) == 1 and t > 5)


def poison(work, token):
    """A model directory whose row of that token is at the end of what f32 can hold."""
    tiny.run(*tiny.train_args(work, "seed", "--steps", 1))
    shutil.copytree(f"{work}/logs/seed/model", f"{work}/poison")
    path = f"{work}/poison/open_clip_model.safetensors"
    with open(path, "r+b") as f:
        n = struct.unpack("<Q", f.read(8))[0]
        entry = json.loads(f.read(n))["token_embedding.weight"]
        width = entry["shape"][1]
        f.seek(8 + n + entry["data_offsets"][0] + 4 * width * token)
        f.write(struct.pack(f"<{width}f", *[3e38] * width))
    os.remove(f"{work}/poison/tessera.json")
    shutil.rmtree(f"{work}/logs/seed")


# ---- what was skipped ----------------------------------------------------------------------------

def skipped(work, name):
    with open(f"{work}/logs/{name}/skipped.jsonl", encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def by_step(lines):
    """Samples of all ranks by step."""
    out = {}
    for line in lines:
        out.setdefault(line["step"], []).extend(line["samples"])
    return out


def state(work, name, step):
    with open(f"{work}/logs/{name}/checkpoints/step_{step:08d}/state.json", encoding="utf-8") as f:
        return json.load(f)


def forget_after(work, name, step):
    """As if the run had been killed some updates behind that checkpoint."""
    for path in tiny.checkpoints(f"{work}/logs/{name}"):
        if int(path.rsplit("_", 1)[1]) != step or "/epoch_" in path:
            shutil.rmtree(path)
    shutil.rmtree(f"{work}/logs/{name}/model")


def goes_on(work, name, n_ranks, step, last, *more):
    """Resumed from `step`, the run has the bytes that it had."""
    def results():
        run = f"{work}/logs/{name}"
        return (tiny.tree(f"{run}/model"), tiny.tree(f"{run}/checkpoints/step_{last:08d}"),
                open(f"{run}/skipped.jsonl", "rb").read())
    before = results()
    forget_after(work, name, step)
    result = ranks.train(work, name, n_ranks, *more, "--resume", "latest")
    tiny.check(f"{name}: goes on to the same bytes, and the same skipped.jsonl",
               result.returncode == 0 and results() == before, result.stdout[-600:])


def not_finite(work):
    token, key = planted(work)
    poison(work, token)
    found = {}
    more = ["--model", f"{work}/poison", "--captions-per-image", 3, "--steps", 20,
            "--save-every-n-steps", 10]
    for n in (1, 2):
        name = f"poison{n}"
        result = ranks.train(work, name, n, *more)
        lines = found[n] = skipped(work, name)
        tiny.check(f"{name}: ends well", result.returncode == 0, result.stdout[-600:])
        steps = by_step(lines)
        tiny.check(f"{name}: one batch an epoch is skipped, a line for each rank",
                   len(steps) == 4 and len(lines) == 4 * n and
                   sorted({x["rank"] for x in lines}) == list(range(n)), lines)
        tiny.check(f"{name}: eight samples each, the planted one among them",
                   all(len(s) == 8 and key in s for s in steps.values()), (key, steps))
        tiny.check(f"{name}: says why", all("not finite" in x["why"] and x["norm"] is None
                                            for x in lines), lines)
        s = state(work, name, 20)
        tiny.check(f"{name}: counted, and not among the losses that are averaged",
                   s["n_skipped"] == 4 and float.fromhex(s["loss_sum"]) < 100, s)
    tiny.check("the same samples on 1 and 2 ranks", by_step(found[1]) == by_step(found[2]))
    goes_on(work, "poison2", 2, 10, 20, *more)


def outliers(work):
    """One deviation is little: some of fifty updates are beyond it."""
    more = ["--skip-outliers", 1, "--steps", 50, "--save-every-n-steps", 35, "--lr", "1e-4"]
    steps = {}
    for n in (1, 2):
        result = ranks.train(work, f"out{n}", n, *more)
        tiny.check(f"outliers, {n} ranks", result.returncode == 0, result.stdout[-600:])
        lines = skipped(work, f"out{n}")
        steps[n] = sorted(by_step(lines))
        tiny.check(f"outliers, {n} ranks: after the 32nd, none or few before the window is usable",
                   lines and min(steps[n]) > 32 and len(lines) == n * len(steps[n]) and
                   all("far above" in x["why"] and x["loss"] > 0 for x in lines), lines)
    tiny.check("the same updates on 1 and 2 ranks", steps[1] == steps[2], steps)
    tiny.check("some of them behind the checkpoint", max(steps[2]) > 35, steps)
    goes_on(work, "out2", 2, 35, 50, *more)
    other = ranks.train(work, "out2", 2, *more, "--skip-outliers", 2, "--resume", "latest")
    tiny.check("another K is another run", other.returncode != 0 and
               b"other options" in other.stdout, other.stdout[-400:])


# ---- interrupted while waiting -------------------------------------------------------------------

def large_pictures(work):
    """Forty PNGs that take far longer to read than the update takes."""
    dice = os.urandom(3 * PNG_SIDE)
    folder = f"{work}/large"
    os.mkdir(folder)
    for i in range(40):
        row = bytes(b ^ i for b in dice)
        with open(f"{folder}/{i:03d}.png", "wb") as f:
            f.write(make_tiny.png(row * PNG_SIDE, PNG_SIDE))
        shutil.copy(f"{work}/pictures/{i:03d}.json", folder)


def interrupted(work):
    """A rank is interrupted while all wait for pictures; the job saves and goes on."""
    large_pictures(work)
    line = ranks.args(work, "waits", 2, "--train-data", f"{work}/large", "-j", 0, "--steps", 8)
    os.environ["PIDS"] = work
    show = ["sh", "-c", 'echo $$ >"$PIDS/pid$OMPI_COMM_WORLD_RANK"; exec "$@"', "sh"]
    run, ends = f"{work}/logs/waits", []
    straight = ranks.job([*ranks.MPIRUN, "-n", "2", *[a.replace("waits", "calm") for a in line]])
    tiny.check("an undisturbed run", straight.returncode == 0, straight.stdout[-400:])
    for turn in range(3):
        child = subprocess.Popen(
            [*ranks.MPIRUN, "-n", "2", *show, *line, *(["--resume", "latest"] if turn else [])],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=tiny.environment(**ranks.HERE))
        n_before = len(ranks.metrics(work, "waits")) if turn else 0
        end = time.monotonic() + 60
        while time.monotonic() < end and child.poll() is None and (
                not os.path.exists(f"{run}/metrics.jsonl") or
                len(ranks.metrics(work, "waits")) < n_before + 1):
            time.sleep(0.01)
        with open(f"{work}/pid{(turn + 1) % 2}", encoding="ascii") as f:
            os.kill(int(f.read()), signal.SIGINT)
        out = child.communicate(timeout=60)[0]
        ends.append((child.returncode, b"saved, go on with --resume latest" in out,
                     len(tiny.checkpoints(run)), out[-300:]))
    tiny.check("Ctrl-C on one rank that waits for data: all save and stop",
               all(code == 130 and said and n > turn for turn, (code, said, n, _) in
                   enumerate(ends)), ends)
    result = ranks.job([*ranks.MPIRUN, "-n", "2", *line, "--resume", "latest"])
    tiny.check("and the run goes on to the same bytes", result.returncode == 0 and
               tiny.tree(f"{run}/model") == tiny.tree(f"{work}/logs/calm/model"),
               result.stdout[-400:])


def main():
    ranks.need()
    work = tiny.work_dir()
    try:
        not_finite(work)
        outliers(work)
        interrupted(work)
    finally:
        tiny.remove(work)
    tiny.finish()


main()
