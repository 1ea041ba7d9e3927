#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A few kills of a random rank, and a loop that starts the job again: script/ranks-faults has many.

    tests/cli/test_ranks_kills.py [SEED]
"""
import os
import random
import sys

import kills
import ranks
import tiny


def main():
    ranks.need()
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else int.from_bytes(os.urandom(4), "little")
    work = tiny.work_dir()
    try:
        found = kills.Campaign(work, 2, [], random.Random(seed), 40).run(4)
        tiny.check("no process is left behind", found["orphans"] == 0, found)
        print(f"seed {seed}: {found}")
    finally:
        tiny.remove(work)
    tiny.finish()


main()
