#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The n-th allocation, write, fsync or rename fails: training, index build, search.

A sample of n, the next one about twice as large, so that it is short; FAULTS_ALL=1 takes every n, and
FAULTS_SECONDS (120) bounds the sample's time, the kinds taking turns.  After each failure: exit status 1 with a message,
checkpoints whole, the index whole or absent, and the next run is not in the way of what is left: it
ends with the bytes of the undisturbed one.  Also: a limit on file sizes, which is a disk that is
full in earnest.
"""
import os
import resource
import sys
import time

import tiny

ALL = os.environ.get("FAULTS_ALL") == "1"
SECONDS = float(os.environ.get("FAULTS_SECONDS", "120"))
KINDS = ("write", "fsync", "rename", "alloc")
begun = time.monotonic()


def next_point(n, last):
    """The next n; where the n-th calls do no harm, in growing steps since the last that did."""
    if ALL:
        return n + 1 + (n - last) // 4
    return n + 1 if n < 3 else int(n * 1.9)


def is_past(kind, n, last, n_fine):
    """Whether no fault is met any more.  Some allocations do no harm: what is mapped is opened in
    another way without them."""
    return n > 4 * last + 400 if kind == "alloc" else n_fine == 2


def each_fault(what, part, run, after):
    """Calls run(fault) for growing n until it no longer meets the fault, and after(result, fault)."""
    todo = {kind: 1 for kind in KINDS}
    n_failed = dict.fromkeys(KINDS, 0)
    n_fine = dict.fromkeys(KINDS, 0)
    last = dict.fromkeys(KINDS, 0)
    while todo and tiny.failed < 5 and (ALL or time.monotonic() - begun < SECONDS * part):
        for kind, n in list(todo.items()):
            fault = f"{kind}:{n}"
            result = run(fault)
            if result.returncode == 0:
                n_fine[kind] += 1
            else:
                n_failed[kind] += 1
                last[kind] = n
                tiny.check(f"{what} {fault}: one clear failure", not tiny.complaint(result),
                           tiny.complaint(result))
            after(result, f"{what} {fault}")
            todo[kind] = next_point(n, last[kind])
            if is_past(kind, n, last[kind], n_fine[kind]):
                print(f"{what}: {kind}: {n_failed[kind]} failures, the last at call {last[kind]}")
                del todo[kind]
    for kind, n in todo.items():
        print(f"{what}: {kind}: {n_failed[kind]} failures, ended before call {n}")


# ---- training -----------------------------------------------------------------------------------

def results(work, name):
    path = f"{work}/logs/{name}"
    return tiny.tree(f"{path}/checkpoints/step_00000006"), tiny.tree(f"{path}/model")


def train(work, name, fault=None, *more, **options):
    args = tiny.train_args(work, name, "--save-every-n-steps", 2, "--delete-previous-checkpoint",
                           "--steps", 6, *more)
    return tiny.run(*args, env=tiny.environment(**({"TESSERA_FAULT": fault} if fault else {})),
                    **options)


def check_left(work, name, straight, what):
    for path in tiny.checkpoints(f"{work}/logs/{name}"):
        tiny.check(f"{what}: {os.path.basename(path)} is whole", tiny.checkpoint_is_whole(path))
    again = train(work, name, None, "--resume", "latest")
    tiny.check(f"{what}: goes on to the same end",
               again.returncode == 0 and results(work, name) == straight, again.stderr)
    tiny.check(f"{what}: no damaged checkpoint is met", b"passed over" not in again.stderr,
               again.stderr)
    tiny.remove(f"{work}/logs/{name}")


def training(work):
    first = train(work, "straight")
    tiny.check("training", first.returncode == 0, first.stderr)
    straight = results(work, "straight")

    def after(result, what):
        if result.returncode == 0:
            tiny.check(f"{what}: unharmed", results(work, "hurt") == straight)
            tiny.remove(f"{work}/logs/hurt")
        else:
            check_left(work, "hurt", straight, what)
    each_fault("train", 0.5, lambda fault: train(work, "hurt", fault), after)

    def full(n_bytes):
        return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))
    for n_bytes in (100, 5000, 200000, 1000000):
        result = train(work, "full", None, preexec_fn=full(n_bytes))
        tiny.check(f"train, files up to {n_bytes} bytes: one clear failure",
                   not tiny.complaint(result), tiny.complaint(result))
        tiny.check(f"train, files up to {n_bytes} bytes: says why",
                   b"File too large" in result.stderr, result.stderr)
        check_left(work, "full", straight, f"train, files up to {n_bytes} bytes")


# ---- index --------------------------------------------------------------------------------------

def indexing(work):
    model = f"{work}/logs/straight/model"

    def build(fault=None, out="index", **options):
        return tiny.run("index", "build", "--model", model, "--data", f"{work}/tiny.tar", "--out",
                        f"{work}/{out}", "--quiet", **options,
                        env=tiny.environment(**({"TESSERA_FAULT": fault} if fault else {})))

    def search(fault=None, out="index"):
        return tiny.run("search", "--index", f"{work}/{out}", "--text", "a thing", "--json",
                        env=tiny.environment(**({"TESSERA_FAULT": fault} if fault else {})))

    tiny.check("index build", build(out="good").returncode == 0)
    good = search(out="good")
    tiny.check("search", good.returncode == 0, good.stderr)
    hits = good.stdout.split(b'"results"')[1]

    def after(result, what):
        if result.returncode != 0 and os.path.exists(f"{work}/index"):
            found = search()
            tiny.check(f"{what}: absent or whole",
                       found.returncode == 0 and found.stdout.split(b'"results"')[1] == hits,
                       found.stderr)
        elif result.returncode != 0:
            again = build()
            tiny.check(f"{what}: is built again", again.returncode == 0, again.stderr)
        tiny.check(f"{what}: answers", search().stdout.split(b'"results"')[-1] == hits)
        left = [n for n in os.listdir(work) if n.startswith("index.")]
        tiny.check(f"{what}: nothing is left beside it", not left, left)
        tiny.remove(f"{work}/index")
    each_fault("index build", 0.85, build, after)

    def answer(result, what):
        if result.returncode == 0:
            tiny.check(f"{what}: unharmed", result.stdout.split(b'"results"')[1] == hits)
    each_fault("search", 1, lambda fault: search(fault, "good"), answer)

    def full():
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))
    result = build(preexec_fn=full)
    tiny.check("index build, disk full: one clear failure", not tiny.complaint(result),
               tiny.complaint(result))
    after(result, "index build, disk full")


def main():
    work = tiny.work_dir()
    training(work)
    indexing(work)
    if tiny.failed == 0:
        tiny.remove(work)
    else:
        print(work)
    tiny.finish()


main()
