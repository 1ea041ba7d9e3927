#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Two hosts with addresses of their own run one job, and a link that goes down ends it.
script/ranks-hosts has more of both.
"""
import random
import sys

import faults
import hosts
import ranks
import tiny


def main():
    ranks.need()
    reason = hosts.reason_not()
    if reason:
        print(f"network namespaces cannot be made here: {reason}\n0 passed, 0 failed")
        sys.exit(0)
    work = tiny.work_dir()
    place = faults.Place(work, 2, [], random.Random(1))
    try:
        with hosts.Hosts(work, 2) as two:
            hosts.same_as_one_host(two, place, 1)
            hosts.cut(two, place, 2)
    finally:
        tiny.remove(work)
    tiny.finish()


main()
