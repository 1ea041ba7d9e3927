#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""kill -9 at random points of a run; every resume ends with the bytes of the undisturbed run.

    tests/cli/test_kill.py [SEED]      KILLS=30 by default

The points are spread over the run's measured length and, for a third of them, are inside a save:
the test waits until a checkpoint's temporary directory exists, then for a random part of the time
that a save takes.  Checkpoints are written every two updates, with and without deleting the one
before.  A run is killed up to three times before it may end.  Also: SIGINT and SIGTERM save.
"""
import os
import random
import signal
import subprocess
import sys
import time

import tiny

KILLS = int(os.environ.get("KILLS", "30"))
SEED = int(sys.argv[1]) if len(sys.argv) > 1 else int.from_bytes(os.urandom(4), "little")
LIMIT = 120


def start(work, name, *more):
    return subprocess.Popen([tiny.TESSERA, *map(str, tiny.train_args(
        work, name, "--save-every-n-steps", 2, "--val-data", f"{work}/tiny.tar", "--val-frequency",
        1, "--val-caption-key", "captions", "--aug-flip", "-j", 1, "--log-every-n-steps", 1, *more))],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        env=tiny.environment())


def wait(child):
    error = child.communicate(timeout=LIMIT)[1]
    return child.returncode, error.decode(errors="replace")


def saving(work, name):
    """A checkpoint that is being written."""
    top = f"{work}/logs/{name}/checkpoints"
    try:
        return any(".tmp" in entry for entry in os.listdir(top))
    except FileNotFoundError:
        return False


def kill(child, work, name, dice, length, inside_save):
    """Kills at a random point; True when the process was still alive, and in a save."""
    begin = time.monotonic()
    if inside_save:
        n_skip = dice.randrange(6)
        while child.poll() is None and time.monotonic() - begin < LIMIT:
            if saving(work, name):
                if n_skip == 0:
                    break
                n_skip -= 1
                while saving(work, name) and child.poll() is None:
                    pass
        time.sleep(dice.random() * 0.004)
    else:
        time.sleep(dice.random() * length)
    in_save = saving(work, name)
    child.send_signal(signal.SIGKILL)
    return wait(child)[0] == -signal.SIGKILL, in_save


def results(work, name):
    """What must be the same: all checkpoints and the model."""
    path = f"{work}/logs/{name}"
    return tiny.tree(f"{path}/checkpoints/step_00000012"), tiny.tree(f"{path}/model")


def one_round(work, name, dice, length, more, straight, left):
    """Up to three kills, then a resume to the end; how many kills met a living process."""
    n_alive = n_saves = 0
    child = start(work, name, *more)
    for _ in range(min(left, dice.randrange(1, 4))):
        alive, in_save = kill(child, work, name, dice, length, dice.randrange(3) == 0)
        n_alive += alive
        n_saves += alive and in_save
        child = start(work, name, *more, "--resume", "latest")
    code, error = wait(child)
    good = tiny.check(f"{name}: the resumed run ends", code == 0, error)
    good &= tiny.check(f"{name}: the bytes of the undisturbed run",
                       good and results(work, name) == straight, f"seed {SEED}: {work}")
    left_over = [n for n in os.listdir(f"{work}/logs/{name}/checkpoints") if ".tmp" in n]
    good &= tiny.check(f"{name}: nothing half-written is left", not left_over, left_over)
    whole = [p for p in tiny.checkpoints(f"{work}/logs/{name}") if tiny.checkpoint_is_whole(p)]
    good &= tiny.check(f"{name}: checkpoints are whole",
                       len(whole) == len(tiny.checkpoints(f"{work}/logs/{name}")), whole)
    return n_alive, n_saves, good


def kills(work):
    dice = random.Random(SEED)
    begin = time.monotonic()
    code, error = wait(start(work, "straight"))
    length = time.monotonic() - begin
    if not tiny.check("the undisturbed run", code == 0, error):
        return
    straight = results(work, "straight")
    code, error = wait(start(work, "twin"))
    tiny.check("the undisturbed run repeats itself", results(work, "twin") == straight, error)
    n_kills = n_saves = turn = 0
    good = True
    while n_kills < KILLS and good and turn < 4 * KILLS:
        more = ["--delete-previous-checkpoint"] if turn % 2 else []
        alive, saves, good = one_round(work, f"killed{turn}", dice, length, more, straight,
                                       KILLS - n_kills)
        tiny.remove(f"{work}/logs/killed{turn}") if good else None
        n_kills += alive
        n_saves += saves
        turn += 1
    tiny.check(f"{KILLS} kills", n_kills >= KILLS, n_kills)
    tiny.check("some inside a save", n_saves > 0 or KILLS < 10, n_saves)
    print(f"seed {SEED}: {n_kills} kills in {turn} runs, {n_saves} inside a save; a run takes "
          f"{length:.2f} s")


def signals(work):
    """The first signal saves a checkpoint and says how to go on; exit status 130."""
    straight = results(work, "straight")
    for number in (signal.SIGINT, signal.SIGTERM):
        name = f"stopped{number}"
        child = start(work, name)
        while not tiny.checkpoints(f"{work}/logs/{name}") and child.poll() is None:
            time.sleep(0.001)
        child.send_signal(number)
        code, error = wait(child)
        if code != 0:  # it may have ended first
            tiny.check(f"{name}: exit status", code == 130, f"{code}: {error}")
            tiny.check(f"{name}: says how to go on", "--resume latest" in error, error)
        code, error = wait(start(work, name, "--resume", "latest"))
        tiny.check(f"{name}: resumed", code == 0 and results(work, name) == straight, error)


def main():
    work = tiny.work_dir()
    kills(work)
    if tiny.failed == 0:
        signals(work)
        tiny.remove(work)
    tiny.finish()


main()
