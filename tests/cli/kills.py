# SPDX-License-Identifier: Apache-2.0
"""A random rank killed again and again while a job trains; a loop starts it again with --resume
latest and nobody touches anything: it ends with the bytes of the job that was left alone.

A third of the kills are inside a save, one in six while the job starts, the others in training.
"""
import os
import re
import signal
import time

import ranks
import tiny
from job import Job

SAVE_EVERY = 4
LIMIT = 30  # seconds for a job to be gone once a rank was killed


def command(work, name, n_ranks, steps, flags):
    return [*ranks.MPIRUN, "-n", n_ranks,
            *ranks.args(work, name, n_ranks, "--save-every-n-steps", SAVE_EVERY,
                        "--delete-previous-checkpoint", *flags, "--steps", steps, "--resume",
                        "latest")]


def results(work, name, steps):
    """What must be the same: the last checkpoint, the model, and what was logged but for times.
    A kill between a save and the removal of the checkpoint before it leaves that one as well."""
    run = f"{work}/logs/{name}"
    times = re.compile(r"time|per_second|gflops|wire_bytes")  # of a window, that saves are in
    logged = [{k: v for k, v in line.items() if not times.search(k)}
              for line in ranks.metrics(work, name)]
    return dict(checkpoint=tiny.tree(f"{run}/checkpoints/step_{steps:08d}"),
                model=tiny.tree(f"{run}/model"), logged=logged)


def lines(work, name):
    try:
        with open(f"{work}/logs/{name}/metrics.jsonl", "rb") as f:
            return f.read().count(b"\n")
    except FileNotFoundError:
        return 0


def saving(work, name):
    try:
        return any(".tmp" in entry for entry in os.listdir(f"{work}/logs/{name}/checkpoints"))
    except FileNotFoundError:
        return False


def until(job, condition, limit=60):
    end = time.monotonic() + limit
    while job.child.poll() is None and time.monotonic() < end and not condition():
        time.sleep(0.001)


def wait_for_moment(job, work, name, dice, victim, stretch):
    """Waits until the rank is to be killed; its process, and the name of the place."""
    place = dice.choice(["save", "save", "start", "train", "train", "train"])
    pid = job.rank_pid(victim)
    if place == "start":
        time.sleep(dice.random() * 0.7)
        return pid, place
    before = lines(work, name)
    until(job, lambda: lines(work, name) != before)
    time.sleep(dice.random() * stretch)
    if place == "save":
        until(job, lambda: saving(work, name))
        time.sleep(dice.random() * 0.004)
    return pid, place


class Campaign:
    """Counts of what was done to one or more runs, one after another."""

    def __init__(self, work, n_ranks, flags, dice, steps):
        self.work, self.n_ranks, self.flags, self.dice = work, n_ranks, flags, dice
        self.steps, self.stretch = steps, 1.0
        self.count = dict(kills=0, runs=0, restarts=0, save=0, start=0, train=0, in_save=0, late=0, launcher_hung=0,
                          orphans=0, wrong_bytes=0)
        self.by_rank = [0] * n_ranks
        self.longest = 0.0
        self.straight = None

    def undisturbed(self):
        begin = time.monotonic()
        job = Job(command(self.work, "straight", self.n_ranks, self.steps, self.flags))
        code = job.child.wait(timeout=600)
        self.length = time.monotonic() - begin
        tiny.check("the undisturbed job", code == 0, job.said()[-800:])
        job.clear()
        self.straight = results(self.work, "straight", self.steps)

    def session(self, name, kill):
        """One start of the job; True when it came to its end."""
        job = Job(command(self.work, name, self.n_ranks, self.steps, self.flags))
        if kill:
            victim = self.dice.randrange(self.n_ranks)
            pid, place = wait_for_moment(job, self.work, name, self.dice, victim, self.stretch)
            in_save = saving(self.work, name)
            if pid is not None and job.child.poll() is None:
                self.end(job, pid, victim, place, in_save)
                return False
        code = job.child.wait(timeout=600)
        tiny.check(f"{name}: ends well", code == 0, job.said()[-800:])
        self.count["orphans"] += job.clear()
        return True

    def end(self, job, pid, victim, place, in_save):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:  # it was at its end
            self.count["late"] += 1
        seconds = job.gone(LIMIT)
        if seconds is None and job.only_launcher():
            # mpirun waits for a rank that it has seen die in its first connection; its ranks are gone.
            self.count["launcher_hung"] += 1
            job.child.kill()
            seconds = job.gone(LIMIT)
        tiny.check(f"rank {victim} killed: the job is gone", seconds is not None, job.said()[-800:])
        self.longest = max(self.longest, seconds or LIMIT)
        self.count["orphans"] += job.clear()
        self.by_rank[victim] += 1
        for key, n in (("kills", 1), (place, 1), ("in_save", in_save)):
            self.count[key] += n

    def run(self, n_kills):
        self.undisturbed()
        self.stretch = 2 * max(0.0, self.length - 2) / max(1, n_kills)
        while self.count["kills"] < n_kills and tiny.failed == 0:
            name = f"killed{self.count['runs']}"
            while not self.session(name, self.count["kills"] < n_kills) and tiny.failed == 0:
                self.count["restarts"] += 1
            self.count["runs"] += 1
            found = results(self.work, name, self.steps) if tiny.failed == 0 else {}
            apart = [k for k in self.straight if found.get(k) != self.straight[k]]
            if "logged" in apart:
                apart += [(a, b) for a, b in zip(found.get("logged", []), self.straight["logged"])
                          if a != b][:2]
            same = tiny.check(f"{name}: the bytes of the undisturbed job", not apart,
                              (apart, self.count))
            self.count["wrong_bytes"] += not same
            if same:
                tiny.remove(f"{self.work}/logs/{name}")
        return dict(self.count, by_rank=self.by_rank, longest_seconds_to_gone=round(self.longest, 2),
                    limit=LIMIT, seconds_undisturbed=round(self.length, 2), steps=self.steps,
                    ranks=self.n_ranks)
