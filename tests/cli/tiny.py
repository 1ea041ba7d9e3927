# SPDX-License-Identifier: Apache-2.0
"""What the tests of whole runs share: the program, a tiny data set, and checks of what it writes."""
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
BUILD = os.path.abspath(os.environ.get("BUILD", os.path.join(ROOT, "build")))
TESSERA = os.path.join(BUILD, "tessera")
SANITIZED = (b"AddressSanitizer", b"runtime error:", b"LeakSanitizer", b"ThreadSanitizer")

passed = failed = 0


def check(what, good, detail=""):
    """One test; its detail is printed when it fails."""
    global passed, failed
    if good:
        passed += 1
    else:
        failed += 1
        print(f"FAILED: {what}\n  {detail}")
    return good


def finish():
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)


def work_dir():
    """A scratch directory, in memory where that is possible, with tiny.tar, model.json ... in it;
    the test ends here when the program is not built."""
    if not os.access(TESSERA, os.X_OK):
        print(f"{TESSERA} is not built\n0 passed, 0 failed")
        sys.exit(0)
    base = os.environ.get("TMPDIR") or ("/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
    path = tempfile.mkdtemp(prefix="tessera_", dir=base)
    subprocess.run([sys.executable, os.path.join(ROOT, "tests/fixtures/train/make_tiny.py"), path],
                   check=True)
    return path


def environment(**more):
    """The surroundings of a run: one thread, nothing of the caller's own settings."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("TESSERA_")}
    env.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive", GOMP_SPINCOUNT="1000", NO_COLOR="1",
               ASAN_OPTIONS="detect_leaks=1:allocator_may_return_null=1")
    env.update({k: str(v) for k, v in more.items()})
    return env


def run(*args, limit=200, env=None, **options):
    """Runs the program; a run past its limit counts as exit status 'hang'."""
    try:
        return subprocess.run([TESSERA, *(a if isinstance(a, bytes) else str(a) for a in args)],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=limit, env=env or environment(),
                              check=False, **options)
    except subprocess.TimeoutExpired as e:
        return subprocess.CompletedProcess(e.args, "hang", e.stdout or b"", e.stderr or b"")


def train_args(work, name, *more):
    """Twelve updates of eight pictures, five to the epoch."""
    return ["train", "--train-data", f"{work}/tiny.tar", "--model", f"{work}/model.json",
            "--logs", f"{work}/logs", "--name", name, "--batch-size", 8, "--lr", 2e-3, "--steps",
            12, "--seed", 1, "--quiet", *more]


def tree(path):
    """Names and hashes of all files below a directory."""
    found = {}
    for folder, _, names in os.walk(path):
        for name in names:
            full = os.path.join(folder, name)
            with open(full, "rb") as f:
                found[os.path.relpath(full, path)] = hashlib.sha256(f.read()).hexdigest()
    return found


def checkpoint_is_whole(path):
    """Every file that state.json lists is there with its size; the program checks the hashes."""
    with open(os.path.join(path, "state.json"), encoding="utf-8") as f:
        state = json.load(f)
    return all(os.path.getsize(os.path.join(path, name)) == int(text.split(":")[0])
               for name, text in state["files"].items()) and "check" in state


def checkpoints(run_path):
    """The directories that have a checkpoint's name."""
    top = os.path.join(run_path, "checkpoints")
    names = os.listdir(top) if os.path.isdir(top) else []
    return sorted(os.path.join(top, n) for n in names
                  if n.startswith(("step_", "epoch_")) and "." not in n)


def complaint(result):
    """Why a run's end is not one clear failure; '' when it is: exit status 1 (or 2, usage), at least
    one line on standard error that begins with the program's name, no sanitizer report."""
    if result.returncode not in (1, 2):
        return f"exit status {result.returncode}: {result.stderr[-600:]!r}"
    if any(word in result.stderr for word in SANITIZED):
        return f"sanitizer: {result.stderr[-3000:].decode(errors='replace')}"
    if not any(line.startswith(b"tessera: ") and len(line) > 12
               for line in result.stderr.splitlines()):
        return f"no message: {result.stderr!r}"
    return ""


def remove(path):
    shutil.rmtree(path, ignore_errors=True)
