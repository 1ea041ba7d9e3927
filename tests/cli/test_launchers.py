#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Training by processes that were started one by one, with torchrun's variables: the bytes of
mpirun's job, on one host and on two."""
import os
import shutil
import socket
import subprocess
import sys

import tiny

# MPI keeps what it allocated until the process ends.
HERE = dict(OMPI_MCA_plm="isolated", OMPI_ALLOW_RUN_AS_ROOT=1, OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1,
            OMPI_MCA_mpi_yield_when_idle=1, OMPI_MCA_btl_vader_single_copy_mechanism="none",
            ASAN_OPTIONS="detect_leaks=0:allocator_may_return_null=1")
RANKS = 4


def args(work, name):
    line = tiny.train_args(work, name, "--log-every-n-steps", 1, "-j", 1)
    line[line.index("--batch-size") + 1] = 8 // RANKS
    line[line.index("--steps") + 1] = 3
    return [tiny.TESSERA, *map(str, line)]


def by_mpirun(work):
    done = subprocess.run(["timeout", "-s", "KILL", "100", "mpirun", "--oversubscribe", "-n",
                           str(RANKS), *args(work, "mpirun")], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env=tiny.environment(**HERE), check=False)
    tiny.check("mpirun's job", done.returncode == 0, done.stdout[-800:])


def by_hand(work, name, address, places):
    """Rank r is started behind places[r]."""
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    jobs = []
    for rank in range(RANKS):
        env = tiny.environment(**HERE, RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=RANKS,
                               MASTER_ADDR=address, MASTER_PORT=port)
        jobs.append(subprocess.Popen(["timeout", "-s", "KILL", "100", *places[rank],
                                      *args(work, name)], stdin=subprocess.DEVNULL,
                                     stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env))
    said = [j.communicate()[0] for j in jobs]
    tiny.check(f"{name}: ranks train", [j.returncode for j in jobs] == [0] * RANKS, said)
    left, right = (tiny.tree(f"{work}/logs/{n}/model") for n in ("mpirun", name))
    tiny.check(f"{name}: the bytes of mpirun's", left == right and left, (left, right))


def on_two_hosts(work):
    """Network namespaces with addresses and names of their own, where this user may make them."""
    names = [f"tess{os.getpid()}{x}" for x in "ab"]
    lines = [["ip", "netns", "add", name] for name in names]
    lines.append(["ip", "link", "add", "v0", "netns", names[0], "type", "veth", "peer", "name",
                  "v0", "netns", names[1]])
    for i, name in enumerate(names):
        lines += [["ip", "-n", name, "addr", "add", f"10.78.0.{i + 1}/24", "dev", "v0"],
                  ["ip", "-n", name, "link", "set", "v0", "up"],
                  ["ip", "-n", name, "link", "set", "lo", "up"]]
    try:
        if all(subprocess.run(line, stderr=subprocess.DEVNULL, check=False).returncode == 0
               for line in lines):
            enter = 'hostname "$0" && exec "$@"'
            places = [["ip", "netns", "exec", names[r % 2], "unshare", "--uts", "sh", "-c", enter,
                       names[r % 2]] for r in range(RANKS)]
            by_hand(work, "two_hosts", "10.78.0.1", places)
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL, check=False)


def main():
    if not shutil.which("mpirun"):
        print("mpirun is not installed (openmpi-bin)\n0 passed, 1 failed")
        sys.exit(1)
    work = tiny.work_dir()
    try:
        by_mpirun(work)
        by_hand(work, "by_hand", "127.0.0.1", [[]] * RANKS)
        if shutil.which("ip"):
            on_two_hosts(work)
    finally:
        tiny.remove(work)
    tiny.finish()


main()
