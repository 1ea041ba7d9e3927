#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""mpirun -n R tessera train --zero S: checkpoints that any number of ranks opens in any stage.

The stages' own numbers are tests/fusion/test_zero.c; all 36 pairs of ranks and all stages with and
without recompute are script/ranks-zero.  Here a run of every stage writes the same bytes, with
evaluations between epochs, and goes on under another number of ranks and another stage.
"""
import os
import re
import shutil

import tiny
from ranks import metrics, need, train

BF16 = ("--precision", "bf16", "--grad-dtype", "bf16")


def same_bytes(work):
    trees = {}
    for stage in (0, 1, 3):
        name = f"z{stage}"
        result = train(work, name, 2, *BF16, "--zero", stage, "--save-every-n-steps", 4,
                       "--val-data", f"{work}/tiny.tar", "--val-frequency", 1)
        if not tiny.check(f"stage {stage} trains", result.returncode == 0, result.stdout[-1500:]):
            continue
        run = f"{work}/logs/{name}"
        trees[stage] = (tiny.tree(f"{run}/checkpoints/step_00000004"),
                        tiny.tree(f"{run}/checkpoints/epoch_1"), tiny.tree(f"{run}/model"),
                        [x["train/loss"] for x in metrics(work, name) if "train/loss" in x])
        with open(f"{run}/checkpoints/results.jsonl", encoding="utf-8") as f:
            tiny.check(f"stage {stage} evaluates at every epoch and at the end",
                       len(f.readlines()) == 3)
        left = [x for x in os.listdir(f"{run}/checkpoints") if "." in x and ".tmp" in x]
        tiny.check(f"stage {stage} leaves nothing behind", not left, left)
        with open(f"{run}/out.log", encoding="utf-8") as f:
            said = re.search(rf"2 ranks, ZeRO stage {stage}; rank 0 holds [0-9.]+ MB", f.read())
        tiny.check(f"stage {stage} says what a rank holds", said)
    for stage in (1, 3):
        tiny.check(f"stage {stage} writes the files of stage 0",
                   stage in trees and trees[stage] == trees.get(0), trees.get(stage))


def goes_on(work):
    """Saved by 2 ranks in stage 3, opened by 1, 3 in other stages, which save the same bytes."""
    saved = f"{work}/logs/z3/checkpoints/step_00000004"
    want = tiny.tree(saved)
    whole = metrics(work, "z0")
    for ranks, stage in ((1, 0), (4, 2)):
        name = f"from3on{ranks}"
        os.makedirs(f"{work}/logs/{name}/checkpoints")
        shutil.copytree(saved, f"{work}/logs/{name}/checkpoints/step_00000004")
        result = train(work, name, ranks, *BF16, "--zero", stage, "--resume", "latest",
                       "--save-every-n-steps", 1)
        if not tiny.check(f"{ranks} ranks go on in stage {stage}", result.returncode == 0,
                          result.stdout[-1500:]):
            continue
        there = metrics(work, name)
        off = max(abs(x["train/loss"] - y["train/loss"]) for x in whole for y in there
                  if x["step"] == y["step"])
        tiny.check(f"{ranks} ranks see the same samples", off < 2e-2 and len(there) == 8, off)
    tiny.check("what is opened stays as it was", tiny.tree(saved) == want and want)


def refusals(work):
    result = train(work, "muon", 2, "--zero", 1, "--opt", "muon")
    tiny.check("Muon is refused", result.returncode != 0 and
               b"with Muon use --zero 0" in result.stdout, result.stdout[-400:])
    result = train(work, "four", 2, "--zero", 4)
    tiny.check("there is no stage 4", result.returncode != 0, result.stdout[-400:])


def main():
    need()
    work = tiny.work_dir()
    try:
        same_bytes(work)
        goes_on(work)
        refusals(work)
    finally:
        tiny.remove(work)
    tiny.finish()


main()
