#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""mpirun -n R tessera train: the same run on 1, 2 and 4 ranks, and jobs that must end.

A run's global batch is --batch-size times R, so 8 pictures are 8, 4 and 2 on each.  Losses and
gradient norms of all steps agree to 2e-5 of themselves: sums of f32 over 8 pictures in another
order, twelve updates on; the same job twice gives the same bytes.
"""
import json
import os
import re
import shutil
import time

import tiny
from ranks import MPIRUN, args, job, metrics, need, train

BOUND = 2e-5


def apart(a, b):
    """The largest relative difference of losses and norms; infinite when steps differ."""
    if [x["step"] for x in a] != [x["step"] for x in b]:
        return float("inf")
    return max(abs(x[k] - y[k]) / abs(x[k]) for x, y in zip(a, b)
               for k in ("train/loss", "train/grad_norm"))


def equal_runs(work):
    for ranks in (1, 2, 4):
        result = train(work, f"r{ranks}", ranks)
        tiny.check(f"{ranks} ranks train", result.returncode == 0, result.stdout[-800:])
    one = metrics(work, "r1")
    tiny.check("one line a step, by rank 0 alone", len(one) == 12, len(one))
    for ranks in (2, 4):
        off = apart(one, metrics(work, f"r{ranks}"))
        tiny.check(f"{ranks} ranks: the same losses and norms", off < BOUND, off)
    for ranks in (1, 2):
        train(work, f"drops{ranks}", ranks, "--force-patch-dropout", "0.5")
    off = apart(metrics(work, "drops1"), metrics(work, "drops2"))
    tiny.check("2 ranks leave out the patches that one does", off < BOUND, off)
    for ranks in (1, 2):
        result = train(work, f"parts{ranks}", ranks, "--batch-size", 4 // ranks, "--accum-freq", 2)
        tiny.check(f"{ranks} ranks train on parts of a batch", result.returncode == 0,
                   result.stdout[-800:])
        off = apart(one, metrics(work, f"parts{ranks}"))
        tiny.check("and have its losses and norms", off < BOUND, off)
    train(work, "again", 2)
    left, right = (tiny.tree(f"{work}/logs/{n}/model") for n in ("r2", "again"))
    tiny.check("the same job twice: the same bytes", left == right and left, (left, right))


def all_objectives(work):
    """Three captions a picture, captions contrasted with each other, both kinds of objective."""
    for image_text, text_text in (("softmax", "sigmoid"), ("sigmoid", "softmax")):
        with open(f"{work}/model.json", encoding="utf-8") as f:
            config = json.load(f)
        config["tessera"] = {**config.get("tessera", {}),
                             "image_text": {"kind": image_text, "weight": 1.0},
                             "text_text": {"kind": text_text, "weight": 0.5}}
        with open(f"{work}/{image_text}.json", "w", encoding="utf-8") as f:
            json.dump(config, f)
        for ranks in (1, 2):
            result = train(work, f"{image_text}{ranks}", ranks, "--captions-per-image", 3,
                           "--model", f"{work}/{image_text}.json", "--steps", 6)
            tiny.check(f"{ranks} ranks: {image_text}, and {text_text} of captions",
                       result.returncode == 0, result.stdout[-800:])
        off = apart(metrics(work, f"{image_text}1"), metrics(work, f"{image_text}2"))
        tiny.check(f"{image_text}: the same losses and norms", off < BOUND, off)


def other_ranks_go_on(work):
    """Saved on 2, gone on with on 1 and on 4."""
    for ranks in (1, 4):
        name = f"from2on{ranks}"
        train(work, name, 2, "--save-every-n-steps", 5)
        run = f"{work}/logs/{name}"
        for folder in tiny.checkpoints(run):
            if not folder.endswith("step_00000005"):
                shutil.rmtree(folder)
        result = train(work, name, ranks, "--save-every-n-steps", 5, "--resume", "latest")
        tiny.check(f"{ranks} ranks go on where 2 stopped", result.returncode == 0,
                   result.stdout[-800:])
        off = apart(metrics(work, "r1"), metrics(work, name))
        tiny.check(f"and {ranks} ranks end as one would have", off < BOUND, off)


def death(work):
    """Rank 1 is killed behind its sixth update; the job that goes on ends with the same bytes."""
    whole = tiny.tree(f"{work}/logs/r2/model")
    victim = ["sh", "-c", 'if [ "$OMPI_COMM_WORLD_RANK" = 1 ]; then "$@" & p=$!; until [ -d "$D" ]; '
              'do sleep 0.01; done; kill -9 $p; wait $p; else exec "$@"; fi', "sh"]
    run = f"{work}/logs/dies"
    os.environ["D"] = f"{run}/checkpoints/step_00000006"
    line = args(work, "dies", 2, "--save-every-n-steps", 2)
    begin = time.monotonic()
    result = job([*MPIRUN, "-n", "2", "-x", "D", *victim, *line], 60)
    tiny.check("a rank that dies takes the job down",
               result.returncode != 0 and time.monotonic() - begin < 50, result.returncode)
    result = job([*MPIRUN, "-n", "2", *line, "--resume", "latest"])
    tiny.check("and it goes on", result.returncode == 0, result.stdout[-800:])
    tiny.check("to the same bytes", tiny.tree(f"{run}/model") == whole)


def refusals(work):
    line = args(work, "differ", 2)
    other = [*line, "--wd", "0.3"]
    result = job([*MPIRUN, "-n", "1", *line, ":", "-n", "1", *other])
    tiny.check("ranks with other options are named",
               result.returncode != 0 and
               re.search(rb"ranks disagree: rank 0 \(.*\): step 0.*; rank 1 \(", result.stdout),
               result.stdout[-800:])
    tiny.check("and leave nothing", not os.path.exists(f"{work}/logs/differ"))
    stops_later = ["sh", "-c", 'if [ "$OMPI_COMM_WORLD_RANK" = 1 ]; then (sleep 2; kill -STOP $$) & fi; '
            'exec "$@"', "sh"]
    result = job([*MPIRUN, "-n", "2", *stops_later, *args(work, "stops", 2, "--rank-timeout", 3),
                  "--steps", "100000"], 60)
    tiny.check("a rank that is stopped is named", result.returncode not in (0, 137) and
               re.search(rb"rank 0: .*rank 1 \(.*is stopped", result.stdout),
               result.stdout[-800:])
    result = train(work, "uneven", 2, "--distill-text", work)
    tiny.check("distillation on ranks is refused", result.returncode != 0, result.stdout[-400:])


def main():
    need()
    work = tiny.work_dir()
    try:
        equal_runs(work)
        all_objectives(work)
        other_ranks_go_on(work)
        death(work)
        refusals(work)
    finally:
        tiny.remove(work)
    tiny.finish()


main()
