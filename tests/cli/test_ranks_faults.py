#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""One of each fault of a job of two ranks: script/ranks-faults has a hundred.

    tests/cli/test_ranks_faults.py [SEED]
"""
import os
import random
import sys

import faults
import ranks
import tiny


def main():
    ranks.need()
    reason = faults.own_mounts()
    if reason:
        print(f"file systems cannot be mounted here: {reason}\n0 passed, 0 failed")
        sys.exit(0)
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else int.from_bytes(os.urandom(4), "little")
    work = tiny.work_dir()
    try:
        print(f"seed {seed}")
        faults.campaign(faults.Place(work, 2, [], random.Random(seed)), 0)
    finally:
        tiny.remove(work)
    tiny.finish()


main()
