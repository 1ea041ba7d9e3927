#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Ranks that share one card over MPI (the emulated one, or with TESSERA_CARD=1 a real one): the
losses of one rank on the card with their batch together, and the same bytes from the same job."""
import json
import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "cli"))
import tiny  # pylint: disable=wrong-import-position

REAL = os.environ.get("TESSERA_CARD") == "1"
PROGRAM = tiny.TESSERA if REAL else os.path.join(tiny.BUILD, "emulated", "tessera")
BOUND = 2e-5  # sums of f32 over 4 pictures in another order, some updates on
HERE = dict(OMPI_MCA_plm="isolated", OMPI_ALLOW_RUN_AS_ROOT=1, OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1,
            OMPI_MCA_mpi_yield_when_idle=1, OMPI_MCA_btl_vader_single_copy_mechanism="none")


def train(work, name, ranks, *more):
    """The third run of a plan is one of its recordings."""
    line = tiny.train_args(work, name, "--log-every-n-steps", 1, "-j", 1, "--device", "cuda",
                           "--precision", "fp32", *more)
    line[line.index("--batch-size") + 1] = 4 // ranks
    line[line.index("--steps") + 1] = 3
    done = subprocess.run(["timeout", "-s", "KILL", "200", "mpirun", "--oversubscribe", "--bind-to",
                           "none", "-n", str(ranks), PROGRAM, *map(str, line)],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, env=tiny.environment(**HERE), check=False)
    tiny.check(f"{name}: trains", done.returncode == 0, done.stdout[-800:])
    with open(f"{work}/logs/{name}/metrics.jsonl", encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def apart(a, b):
    return max(abs(x[k] - y[k]) / abs(x[k]) for x, y in zip(a, b, strict=True)
               for k in ("train/loss", "train/grad_norm"))


def main():
    if not shutil.which("mpirun") or not os.access(PROGRAM, os.X_OK):
        print(f"{PROGRAM} or mpirun is not there\n0 passed, 0 failed")
        sys.exit(0)
    work = tiny.work_dir()
    try:
        one = train(work, "one", 1)
        two = train(work, "two", 2)
        tiny.check("two ranks on a card: the losses and norms of one", apart(one, two) < BOUND,
                   (one, two))
        if REAL:
            again = train(work, "again", 2)
            tiny.check("the same job twice", apart(two, again) == 0, (two, again))
            left, right = (tiny.tree(f"{work}/logs/{n}/model") for n in ("two", "again"))
            tiny.check("the same bytes", left == right and left, (left, right))
    finally:
        tiny.remove(work)
    tiny.finish()


main()
