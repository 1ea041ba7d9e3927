# SPDX-License-Identifier: Apache-2.0
"""What the tests of several ranks share: mpirun on one host, runs, and what they logged."""
import json
import shutil
import subprocess
import sys

import tiny

MPIRUN = ["mpirun", "--oversubscribe", "--bind-to", "none"]
# One host, without ssh; MPI keeps what it allocated until the process ends.
HERE = dict(OMPI_MCA_plm="isolated", OMPI_ALLOW_RUN_AS_ROOT=1, OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1,
            OMPI_MCA_mpi_yield_when_idle=1, OMPI_MCA_btl_vader_single_copy_mechanism="none",
            ASAN_OPTIONS="detect_leaks=0:allocator_may_return_null=1")


def need():
    """The test ends here where there is no mpirun."""
    if not shutil.which("mpirun"):
        print("mpirun is not installed (openmpi-bin)\n0 passed, 1 failed")
        sys.exit(1)


def job(command, limit=150):
    return subprocess.run(["timeout", "-s", "KILL", str(limit), *map(str, command)],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, env=tiny.environment(**HERE), check=False)


def args(work, name, ranks, *more):
    """tiny's run with its batch of eight shared by the ranks."""
    line = tiny.train_args(work, name, "--log-every-n-steps", 1, "-j", 1, *more)
    line[line.index("--batch-size") + 1] = 8 // ranks
    return [tiny.TESSERA, *map(str, line)]


def train(work, name, ranks, *more):
    return job([*MPIRUN, "-n", str(ranks), *args(work, name, ranks, *more)])


def metrics(work, name):
    with open(f"{work}/logs/{name}/metrics.jsonl", encoding="utf-8") as f:
        return [json.loads(line) for line in f if line.endswith("\n")]
