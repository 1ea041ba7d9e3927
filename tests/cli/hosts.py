# SPDX-License-Identifier: Apache-2.0
"""Hosts with addresses of their own on one machine: network namespaces at the ends of veth links to
a switch, which is a bridge in a namespace too.  MPI starts its daemons there by an agent that stands
in for ssh, and speaks TCP alone, so what ranks send each other crosses the links and is counted.

Addresses are 10.77.N.H, host names hostH; nothing outside the namespaces is touched.
"""
import json
import os
import subprocess
import time

import faults
import ranks
import tiny
from job import Job

# Seconds: the ranks' own limit, the notes' grace, the launcher's keepalive, a busy machine.
CUT_LIMIT = faults.TIMEOUT + 4 + 9 + 4

AGENT = """#!/bin/sh
# Stands in for ssh: agent ADDRESS COMMAND...
n=${1##*.}
shift
exec ip netns exec "%s$n" unshare --uts sh -c "hostname host$n; $*"
"""


def ip(*args):
    done = subprocess.run(["ip", *map(str, args)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"ip {' '.join(map(str, args))}: {done.stderr.strip()}")
    return done.stdout


class Hosts:
    """n hosts, from 1; a context."""

    def __init__(self, work, n):
        self.work, self.n = work, n
        self.net = os.getpid() % 250 + 1
        self.prefix = f"tess{os.getpid()}h"
        self.made = []

    def __enter__(self):
        try:
            self.make()
        except OSError:
            self.__exit__()
            raise
        return self

    def add(self, name):
        ip("netns", "add", name)
        self.made.append(name)
        ip("-n", name, "link", "set", "lo", "up")

    def make(self):
        switch = f"{self.prefix}0"
        self.add(switch)
        ip("-n", switch, "link", "add", "br0", "type", "bridge")
        ip("-n", switch, "link", "set", "br0", "up")
        for h in range(1, self.n + 1):
            self.add(self.space(h))
            ip("-n", self.space(h), "link", "add", "eth0", "type", "veth", "peer", "name", f"port{h}",
               "netns", switch)
            ip("-n", switch, "link", "set", f"port{h}", "master", "br0", "up")
            ip("-n", self.space(h), "addr", "add", f"{self.address(h)}/24", "dev", "eth0")
            ip("-n", self.space(h), "link", "set", "eth0", "up")
        self.agent = f"{self.work}/agent"
        with open(self.agent, "w", encoding="ascii") as f:
            f.write(AGENT % self.prefix)
        os.chmod(self.agent, 0o755)

    def __exit__(self, *_):
        for name in reversed(self.made):
            subprocess.run(["ip", "netns", "del", name], check=False)

    def space(self, host):
        return f"{self.prefix}{host}"

    def address(self, host):
        return f"10.77.{self.net}.{host}"

    def link(self, host, state):
        """Takes a host's cable out ("down") or puts it in again ("up"), at the switch."""
        ip("-n", f"{self.prefix}0", "link", "set", f"port{host}", state)

    def retry(self, n):
        """How often TCP sends again what nobody acknowledges: 15 is a quarter of an hour."""
        for h in range(1, self.n + 1):
            ip("netns", "exec", self.space(h), "sysctl", "-qw", f"net.ipv4.tcp_retries2={n}")

    def sent(self, host):
        """Bytes that left this host."""
        shown = json.loads(ip("-n", self.space(host), "-j", "-s", "link", "show", "eth0"))
        return shown[0]["stats64"]["tx"]["bytes"]

    def job(self, each, *command):
        """mpirun on the first host, `each` ranks on every one."""
        where = ",".join(f"{self.address(h)}:{each}" for h in range(1, self.n + 1))
        return Job(["ip", "netns", "exec", self.space(1), "unshare", "--uts", "sh", "-c",
                    'hostname host1; exec "$@"', "sh", *ranks.MPIRUN, "--host", where, "-n",
                    each * self.n, *command],
                   OMPI_MCA_plm="rsh", OMPI_MCA_plm_rsh_agent=self.agent,
                   OMPI_MCA_plm_rsh_no_tree_spawn=1, OMPI_MCA_btl="self,tcp",
                   OMPI_MCA_pml="ob1", OMPI_MCA_btl_tcp_if_include="eth0",
                   OMPI_MCA_oob_tcp_if_include="eth0", OMPI_MCA_oob_tcp_keepalive_time=6,
                   OMPI_MCA_oob_tcp_keepalive_intvl=1, OMPI_MCA_oob_tcp_keepalive_probes=3, OMPI_MCA_orte_tmpdir_base=self.work)


def reason_not():
    """Why hosts cannot be made here, or None."""
    name = f"tess{os.getpid()}t"
    try:
        ip("netns", "add", name)
        ip("-n", name, "link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
    except OSError as e:
        return str(e)
    finally:
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return None


def parameters(run):
    """Bytes of the weights that a run trained, as f32."""
    return os.path.getsize(f"{run}/model/open_clip_model.safetensors")


def same_as_one_host(hosts, place, each):
    """The job's bytes are those of as many ranks on one host; its sums have crossed the links."""
    name, n = place.name(), each * hosts.n
    place.n_ranks = n
    before = [hosts.sent(h) for h in range(1, hosts.n + 1)]
    job = hosts.job(each, *place.args(name))
    good = tiny.check(f"{hosts.n} hosts: {n} ranks train", job.gone(120) is not None and
                      job.child.returncode == 0, job.said()[-1500:])
    sent = [hosts.sent(h) - b for h, b in zip(range(1, hosts.n + 1), before)]
    job.clear()
    if not good:
        return dict(hosts=hosts.n, ranks=n, bytes_sent=sent)
    least = 12 * parameters(place.run(name)) * (hosts.n - 1) // hosts.n
    tiny.check(f"{hosts.n} hosts: what ranks send crosses the links", min(sent) > least,
               (sent, least))
    place.base = None
    tiny.check(f"{hosts.n} hosts: the bytes of one host",
               place.result(name) == place.result(place.finished()))
    return dict(hosts=hosts.n, ranks=n, bytes_sent=sent, least_expected=least)


def cut(hosts, place, host):
    """A cable that is taken out in the middle of training and stays out."""
    name = place.name()
    job = hosts.job(1, *place.args(name, "--steps", 1000000, "--rank-timeout", faults.TIMEOUT))
    faults.trains(job, place, name)
    hosts.retry(3)
    hosts.link(host, "down")
    who = r"rank \d \(host\d, process \d+\)"
    found = faults.outcome("a link goes down", job, CUT_LIMIT, [who], bounds_launcher=True)
    hosts.link(host, "up")
    hosts.retry(15)
    tiny.check(f"host {host} of {hosts.n} cut off: a named end within {found['limit']} s, nothing left",
               found["detected"] and found["named"] and found["orphans"] == 0, found)
    return found


def blink(hosts, place, host, seconds):
    """A cable that is out for less than the limit: the job goes on, and nothing is lost."""
    name = place.name()
    job = hosts.job(1, *place.args(name, "--rank-timeout", 60, "--steps", 60))
    faults.trains(job, place, name)
    hosts.link(host, "down")
    time.sleep(seconds)
    hosts.link(host, "up")
    tiny.check(f"a link that is down for {seconds} s: the job ends well",
               job.gone(120) is not None and job.child.returncode == 0, job.said()[-1500:])
    job.clear()
