# SPDX-License-Identifier: Apache-2.0
"""Faults that end a job, or that it must notice: each is one function, which does it once at a
random place and tells how long it took until all processes were gone, and whether a line that the
user sees names who or what it was.

File systems are mounted, so this runs in a mount namespace of its own (own_mounts).
"""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import ranks
import tiny
from job import Job

TIMEOUT = 3  # --rank-timeout of jobs that are stopped
STOP_LIMIT = TIMEOUT + 8  # the notes' grace, 4 s; MPI's end of a stopped process, 1 s; a busy machine
LIMIT = 30  # of a job that ends by itself, its start and its files among it
COMM = os.path.join(tiny.BUILD, "tests/tensor/test_comm")


def own_mounts():
    """Starts the script again where it may mount; the reason when that cannot be."""
    if os.environ.get("FAULTS_OWN_MOUNTS") == "1":
        return None
    trial = subprocess.run(["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"],
                           stderr=subprocess.PIPE, check=False)
    if trial.returncode != 0:
        return trial.stderr.decode().strip() or "unshare --mount failed"
    sys.exit(subprocess.run(["unshare", "--mount", sys.executable, *sys.argv], check=False,
                            env={**os.environ, "FAULTS_OWN_MOUNTS": "1"}).returncode)


class Place:
    """Where faults are done: a directory, the ranks, flags of every run, chance."""

    def __init__(self, work, n_ranks, flags, dice):
        self.work, self.n_ranks, self.flags, self.dice = work, n_ranks, flags, dice
        self.n = 0
        self.base = None
        with open(f"{work}/model.json", encoding="utf-8") as f:
            model = json.load(f)
        model["model_cfg"]["text_cfg"]["layers"] += 1
        with open(f"{work}/other.json", "w", encoding="utf-8") as f:
            json.dump(model, f)

    def name(self):
        self.n += 1
        return f"fault{self.n}"

    def rank(self):
        return self.dice.randrange(self.n_ranks)

    def args(self, name, *more):
        return ranks.args(self.work, name, self.n_ranks, "--save-every-n-steps", 4, *self.flags,
                          *more)

    def job(self, name, *more, wrap=(), **variables):
        return Job([*ranks.MPIRUN, "-n", self.n_ranks, *wrap, *self.args(name, *more)], **variables)

    def run(self, name):
        return f"{self.work}/logs/{name}"

    def result(self, name):
        return tiny.tree(f"{self.run(name)}/model")

    def finished(self):
        """A run that was left alone, with checkpoints of steps 4, 8 and 12; made once."""
        if not self.base:
            self.base = f"base{self.n_ranks}_{self.n}"
            job = self.job(self.base)
            tiny.check("a run without faults", job.gone(120) and job.child.returncode == 0,
                       job.said()[-800:])
            job.clear()
        return self.base

    def copy(self):
        """That run stopped behind its second checkpoint."""
        base, name = self.finished(), self.name()
        shutil.copytree(self.run(base), self.run(name))
        shutil.rmtree(f"{self.run(name)}/model")
        for path in tiny.checkpoints(self.run(name)):
            if not path.endswith(("04", "08")):
                shutil.rmtree(path)
        return name


def outcome(kind, job, limit, names, ends_badly=True, bounds_launcher=False):
    """Follows the job to its end; `names` are patterns of which the output must have all.  With
    bounds_launcher an mpirun that is left alone is ended, and counted."""
    seconds = job.gone(limit)
    hung = bounds_launcher and seconds is None and job.only_launcher()
    if hung:
        job.child.kill()
        seconds = limit + job.gone(limit)
    said = job.said().decode(errors="replace")
    code = job.child.poll()
    found = dict(kind=kind, seconds=seconds, limit=limit, named=all(re.search(n, said) for n in names),
                 detected=seconds is not None and (code != 0) == ends_badly, orphans=job.clear(), hung=hung,
                 said=said[-1500:])
    return found


def trains(job, place, name, least=3):
    """Waits until it has logged some steps."""
    end = time.monotonic() + 60
    path = f"{place.run(name)}/metrics.jsonl"
    while job.child.poll() is None and time.monotonic() < end:
        try:
            with open(path, "rb") as f:
                if f.read().count(b"\n") >= least:
                    break
        except FileNotFoundError:
            pass
        time.sleep(0.01)
    time.sleep(place.dice.random() * 0.3)


# ---- one rank ------------------------------------------------------------------------------------

def stopped(place):
    """SIGSTOP of a rank somewhere in training."""
    name, rank = place.name(), place.rank()
    job = place.job(name, "--steps", 1000000, "--rank-timeout", TIMEOUT)
    trains(job, place, name)
    os.kill(job.rank_pid(rank), signal.SIGSTOP)
    return outcome("SIGSTOP", job, STOP_LIMIT, [rf"rank {rank} \([^)]*\) is stopped|"
                                               rf"rank {rank} \([^)]*\) did not come"])


def killed(place):
    name, rank = place.name(), place.rank()
    job = place.job(name, "--steps", 1000000)
    trains(job, place, name)
    os.kill(job.rank_pid(rank), signal.SIGKILL)
    return outcome("SIGKILL of a rank", job, LIMIT, [rf"rank {rank} .* exited on signal 9"])


def launcher(place):
    """SIGKILL of mpirun, after which nobody is left to say anything."""
    name = place.name()
    job = place.job(name, "--steps", 1000000)
    trains(job, place, name)
    job.child.kill()
    return outcome("SIGKILL of the launcher", job, LIMIT, [])


# ---- collectives ---------------------------------------------------------------------------------

def stray(place, kind, ways):
    way, seed = place.dice.choice(ways), place.dice.randrange(1 << 30)
    job = Job([*ranks.MPIRUN, "-n", place.n_ranks, COMM, "stray"], TESS_STRAY=f"{seed} {way}")
    found = outcome(kind, job, LIMIT, [r"ranks disagree: rank 0 \(.*; rank \d \("])
    return dict(found, stray=f"{seed} {way}")


def mismatched(place):
    return stray(place, "mismatched collective", (0, 1, 3, 4))


def short(place):
    return stray(place, "short message", (2,))


# ---- another configuration, other files ----------------------------------------------------------

OTHERS = (("--wd", "0.3"), ("--lr", "1e-3"), ("--seed", "2"), ("--steps", "13"),
          ("--skip-outliers", "6"), ("--captions-per-image", "2"), ("--grad-clip-norm", "1"),
          ("--beta1", "0.8"), ("--model", "other.json"))


def config(place):
    name, rank = place.name(), place.rank()
    other = [f"{place.work}/{x}" if x.endswith(".json") else x for x in place.dice.choice(OTHERS)]
    line, parts = place.args(name), []
    for n, more in ((rank, []), (1, other), (place.n_ranks - rank - 1, [])):
        parts += [":"] * bool(parts and n) + (["-n", n, *line, *more] if n else [])
    job = Job([*ranks.MPIRUN, *parts])
    found = outcome("another configuration", job, LIMIT,
                    [r"ranks disagree|disagree|of other options", rf"rank {rank or r'[0-9]'} \("])
    found["named"] &= not os.path.exists(place.run(name))
    return found


# Rank $RANK sees $OTHER where the others see $FILE, as on a host whose copy differs.
SEES = ["unshare", "--mount", "sh", "-c", 'if [ "$OMPI_COMM_WORLD_RANK" = "$RANK" ]; then '
        'mount --bind "$OTHER" "$FILE" || exit 9; fi; exec "$@"', "sh"]


def flip(path, dice, begin=0, end=None):
    """One bit of a file."""
    with open(path, "r+b") as f:
        at = dice.randrange(begin, end or os.path.getsize(path))
        f.seek(at)
        byte = f.read(1)[0] ^ 1 << dice.randrange(8)
        f.seek(at)
        f.write(bytes([byte]))


def hosts(place):
    """Data, weights or a checkpoint that are not the same on one rank's host."""
    rank, which = place.rank(), place.dice.randrange(3)
    more = []
    if which == 0:  # one caption changed
        name, file, other = place.name(), f"{place.work}/tiny.tar", f"{place.work}/other.tar"
    elif which == 1:  # a bit of a model to start from
        model = f"{place.run(place.finished())}/model"
        name, more = place.name(), ["--model", model]
        file, other = f"{model}/open_clip_model.safetensors", f"{place.work}/{name}.safetensors"
        shutil.copy(file, other)
        flip(other, place.dice, os.path.getsize(other) // 2)
    else:  # a bit of the newest checkpoint: that rank takes an older one
        name = place.copy()
        file = f"{tiny.checkpoints(place.run(name))[-1]}/optimizer.safetensors"
        other = f"{place.work}/{name}.safetensors"
        shutil.copy(file, other)
        flip(other, place.dice)
        more = ["--resume", "latest"]
    job = place.job(name, *more, wrap=SEES, RANK=rank, FILE=file, OTHER=other)
    return outcome("files of a host differ", job, LIMIT,
                   [r"disagree", rf"rank {rank or r'[0-9]'} \("] if which != 1 else
                   [r"disagree|fingerprint|model\.safetensors"])


def checkpoint(place):
    """A file of the newest checkpoint missing, cut or flipped by a bit: the one before is taken,
    with a word about it, and the run ends as it would have; named itself, it is refused."""
    name = place.copy()
    last = tiny.checkpoints(place.run(name))[-1]
    file = place.dice.choice(sorted(os.listdir(last)))
    way = place.dice.choice(("flip", "missing", "cut"))
    path = f"{last}/{file}"
    if way == "flip":
        flip(path, place.dice)
    elif way == "missing":
        os.remove(path)
    else:
        os.truncate(path, os.path.getsize(path) // 2)
    explicit = place.dice.random() < 0.3
    job = place.job(name, "--resume", last if explicit else "latest")
    found = outcome("checkpoint damaged", job, LIMIT,
                    [re.escape(os.path.basename(last)), r"|".join(map(re.escape, (
                        file, "is damaged", "No such file")))] +
                    ([] if explicit else ["passed over"]), ends_badly=explicit)
    if not explicit:
        found["detected"] &= place.result(name) == place.result(place.finished())
    return found


def shard(place):
    """A shard of the data missing, or one whose bytes at a random place are not what they were."""
    name, data = place.name(), f"{place.work}/shard{place.n}.tar"
    if place.dice.random() < 0.5:
        job = place.job(name, "--train-data", data)
        return outcome("shard missing", job, LIMIT, [re.escape(data)])
    shutil.copy(f"{place.work}/tiny.tar", data)
    with open(data, "rb") as f:
        at = f.read().index(b"\x89PNG", place.dice.randrange(40000)) + 60
    flip(data, place.dice, at, at + 20)
    job = place.job(name, "--train-data", data)
    return outcome("shard flipped by a bit", job, LIMIT, ["left out.*"], ends_badly=False)


# ---- a disk that fills ---------------------------------------------------------------------------

def mount(path, n_bytes, *more):
    subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join([*more, f"size={n_bytes}"]), "none",
                    path], check=True)


def disk(place):
    base = place.finished()
    one = sum(os.path.getsize(os.path.join(d, f)) for d, _, files in
              os.walk(tiny.checkpoints(place.run(base))[0]) for f in files)
    name = place.name()
    os.makedirs(place.run(name))
    mount(place.run(name), int(one * (0.02 + 1.9 * place.dice.random())))
    try:
        job = place.job(name)
        found = outcome("disk full in a save", job, LIMIT, ["No space left on device"])
        whole = all(map(tiny.checkpoint_is_whole, tiny.checkpoints(place.run(name))))
        mount(place.run(name), one * 20, "remount")
        again = place.job(name, "--resume", "latest")
        found["detected"] &= (whole and again.gone(60) is not None and
                              again.child.returncode == 0 and
                              place.result(name) == place.result(base))
        found["orphans"] += again.clear()
    finally:
        subprocess.run(["umount", place.run(name)], check=True)
    return found


# How many of a hundred.
ALL = {stopped: 25, mismatched: 25, short: 10, config: 10, hosts: 8, checkpoint: 8, shard: 4,
       disk: 4, killed: 3, launcher: 3}


def table(found):
    """A line a kind: how often, noticed, named, the longest time, processes left."""
    kinds = {}
    for f in found:
        k = kinds.setdefault(f["kind"], dict(n=0, detected=0, named=0, orphans=0, launcher_hung=0,
                                             longest_seconds=0.0,
                                             limit=f["limit"]))
        k["n"] += 1
        k["detected"] += f["detected"]
        k["named"] += f["named"]
        k["orphans"] += f["orphans"]
        k["launcher_hung"] += f["hung"]
        k["longest_seconds"] = round(max(k["longest_seconds"], f["seconds"] or f["limit"]), 2)
    print(f"{'fault':26} {'n':>4} {'detected':>9} {'named':>6} {'longest s':>10} {'limit s':>8} "
          f"{'left':>5}")
    for kind, k in kinds.items():
        print(f"{kind:26} {k['n']:4} {k['detected']:9} {k['named']:6} {k['longest_seconds']:10.2f} "
              f"{k['limit']:8} {k['orphans']:5}")
    return kinds


def campaign(place, n_faults):
    """About n_faults in the proportions above, in random order; every one must be seen and named."""
    jobs = [f for f, n in ALL.items() for _ in range(max(1, round(n * n_faults / 100)))]
    place.dice.shuffle(jobs)
    found = []
    for fault in jobs:
        f = fault(place)
        found.append(f)
        tiny.check(f"{f['kind']}: noticed within {f['limit']} s, named, nothing left",
                   f["detected"] and f["named"] and f["orphans"] == 0, f)
        for path in (place.run(f"fault{place.n}"), f"{place.work}/fault{place.n}.safetensors"):
            shutil.rmtree(path, ignore_errors=True)
    return table(found)
