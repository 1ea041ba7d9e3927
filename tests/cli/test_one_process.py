#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""One process at a time trains in a run directory; the lock ends with its process."""
import os
import subprocess
import time

import tiny


def main():
    work = tiny.work_dir()
    args = tiny.train_args(work, "run", "--steps", 100000, "--save-every-n-steps", 5)
    saved = f"{work}/logs/run/checkpoints/step_00000005"
    with subprocess.Popen([tiny.TESSERA, *map(str, args)], env=tiny.environment(),
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as first:
        end = time.monotonic() + 60
        while first.poll() is None and not os.path.exists(saved) and time.monotonic() < end:
            time.sleep(0.02)
        second = tiny.run(*args, "--resume", "latest")
        tiny.check("the first is still at it", first.poll() is None)
        first.kill()
    tiny.check("a second process is turned away, and told why",
               second.returncode == 1 and b"another process is training" in second.stderr,
               second.stderr)
    with subprocess.Popen([tiny.TESSERA, *map(str, args), "--resume", "latest"],
                          env=tiny.environment(), stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE) as third:
        time.sleep(1)
        running = third.poll() is None
        third.kill()
        message = third.stderr.read()
    tiny.check("a killed process leaves no lock behind", running, message)
    tiny.remove(work)
    tiny.finish()


main()
