# SPDX-License-Identifier: Apache-2.0
"""A job of several ranks that faults are done to: started, looked at, and followed until nothing of
it is left.  Its processes are known by a word in their environment, wherever they belong to."""
import os
import signal
import subprocess
import tempfile
import time
import uuid

import ranks
import tiny


def environ_of(pid):
    """Of a process that lives; b"" when it is gone or no longer anybody's."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as f:
            if f.read().rsplit(b")", 1)[1].split()[0] == b"Z":
                return b""
        with open(f"/proc/{pid}/environ", "rb") as f:
            return f.read()
    except OSError:
        return b""


class Job:
    """mpirun with a command line; its output is in a file."""

    def __init__(self, command, **variables):
        self.word = uuid.uuid4().hex
        self.out = tempfile.TemporaryFile()
        env = tiny.environment(**{**ranks.HERE, **variables, "FAULTS_JOB": self.word})
        self.child = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL,
                                      stdout=self.out, stderr=subprocess.STDOUT, env=env,
                                      start_new_session=True)

    def processes(self):
        """All that belong to it, by id, the launcher among them."""
        word = self.word.encode()
        found = {}
        for name in os.listdir("/proc"):
            if name.isdigit():
                environ = environ_of(name)
                if word in environ:
                    found[int(name)] = environ
        return found

    def rank_pid(self, rank, program=tiny.TESSERA, limit=30):
        """The process of a rank once it runs the program; None when the job ended before."""
        want = b"OMPI_COMM_WORLD_RANK=%d\0" % rank
        end = time.monotonic() + limit
        while time.monotonic() < end and self.child.poll() is None:
            for pid, environ in self.processes().items():
                try:
                    if want in environ and os.readlink(f"/proc/{pid}/exe") == program:
                        return pid
                except OSError:
                    continue
            time.sleep(0.01)
        return None

    def said(self):
        self.out.flush()
        return os.pread(self.out.fileno(), 1 << 22, 0)

    def gone(self, limit):
        """Seconds until the launcher and all its processes are gone; None beyond the limit."""
        begin = time.monotonic()
        while time.monotonic() - begin < limit:
            if self.child.poll() is not None and not self.processes():
                return time.monotonic() - begin
            time.sleep(0.01)
        return None

    def only_launcher(self):
        """mpirun alone is there: its ranks are gone and it does not see it."""
        return list(self.processes()) == [self.child.pid]

    def clear(self):
        """Ends what should not be there any more; how many processes that were."""
        left = self.processes()
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.child.wait()
        self.out.close()
        return len(left)
