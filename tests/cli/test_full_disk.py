#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A file system that is full: training and index build on one that is too small, then made larger.

The failed run says so and leaves whole checkpoints and a whole index or none; with room it goes on to
the bytes of a run that was never short of it.
The file system is mounted in a mount namespace of the test's own, for which it must be root.
"""
import os
import subprocess
import sys

import tiny

FULL = b"No space left on device"


def mount(path, n_bytes, *more):
    subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join([*more, f"size={n_bytes}"]), "none",
                    path], check=True)


def train(work, logs, *more, **options):
    args = tiny.train_args(work, "run", "--save-every-n-steps", 2, "--steps", 6,
                           "--delete-previous-checkpoint", *more)
    args[args.index("--logs") + 1] = logs
    return tiny.run(*args, **options)


def results(logs):
    return tiny.tree(f"{logs}/run/checkpoints/step_00000006"), tiny.tree(f"{logs}/run/model")


def bytes_below(path):
    return sum(os.path.getsize(os.path.join(d, f)) for d, _, files in os.walk(path) for f in files)


def training(work):
    logs, disk = f"{work}/logs", f"{work}/disk"
    tiny.check("training", train(work, logs).returncode == 0)
    straight, one = results(logs), bytes_below(f"{logs}/run/checkpoints/step_00000006")
    os.mkdir(disk)
    for part in (0.02, 0.5, 1.2, 1.9):
        what = f"room for {part} checkpoints"
        mount(disk, int(one * part))
        result = train(work, disk)
        tiny.check(f"{what}: one clear failure", not tiny.complaint(result), tiny.complaint(result))
        tiny.check(f"{what}: says why", FULL in result.stderr, result.stderr)
        for path in tiny.checkpoints(f"{disk}/run"):
            tiny.check(f"{what}: {os.path.basename(path)} is whole",
                       tiny.checkpoint_is_whole(path))
        mount(disk, one * 20, "remount")
        again = train(work, disk, "--resume", "latest")
        tiny.check(f"{what}: goes on to the same end",
                   again.returncode == 0 and results(disk) == straight, again.stderr)
        subprocess.run(["umount", disk], check=True)


def indexing(work):
    disk = f"{work}/disk"

    def build(*more):
        return tiny.run("index", "build", "--model", f"{work}/logs/run/model", "--data",
                        f"{work}/tiny.tar", "--out", f"{disk}/index", "--quiet", *more)
    mount(disk, 1 << 22)
    tiny.check("index build", build().returncode == 0)
    whole = bytes_below(f"{disk}/index")
    before = tiny.tree(f"{disk}/index")
    mount(disk, whole * 3 // 2, "remount")
    result = build("--replace")
    tiny.check("index build, disk full: one clear failure", not tiny.complaint(result),
               tiny.complaint(result))
    tiny.check("index build, disk full: the index in service is untouched",
               tiny.tree(f"{disk}/index") == before and os.listdir(disk) == ["index"],
               os.listdir(disk))
    mount(disk, 1 << 22, "remount")
    tiny.check("index build, with room again", build("--replace").returncode == 0)
    subprocess.run(["umount", disk], check=True)


def main():
    if os.environ.get("TESSERA_OWN_MOUNTS") != "1":
        inside = subprocess.run(["unshare", "--mount", sys.executable, __file__], check=False,
                                env={**os.environ, "TESSERA_OWN_MOUNTS": "1"})
        sys.exit(inside.returncode)
    work = tiny.work_dir()
    training(work)
    indexing(work)
    tiny.remove(work)
    tiny.finish()


if os.environ.get("TESSERA_OWN_MOUNTS") != "1" and subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"], check=False,
        stderr=subprocess.DEVNULL).returncode != 0:
    print("file systems cannot be mounted here\n0 passed, 0 failed")
    sys.exit(0)
main()
