# SPDX-License-Identifier: Apache-2.0
"""What the benches share: running a program and what it used, the machine, samples, results."""
import datetime
import json
import os
import statistics
import subprocess
import sys
import time

QUICK = os.environ.get('BENCH_QUICK', '') not in ('', '0')


def say(text):
    print('    ' + text, file=sys.stderr, flush=True)


class Run:
    """A finished process: its output, wall seconds and peak resident bytes."""

    def __init__(self, command, env=None):
        start = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, **(env or {})},
                              stdin=subprocess.DEVNULL) as process:
            self.out = process.stdout.read().decode()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        self.seconds = time.perf_counter() - start
        self.peak_rss_bytes = usage.ru_maxrss * 1024
        if process.returncode != 0:
            raise SystemExit('bench: exit status %d of: %s' % (process.returncode,
                                                               ' '.join(command)))


class Context:
    """Where everything is, and how long to measure."""

    def __init__(self, build, data, arguments):
        self.build, self.data, self.arguments = build, data, arguments
        self.tessera = os.path.join(build, 'tessera')
        self.work = os.path.join(build, 'bench')
        self.demo = os.environ.get('DEMO_DIR', 'demo')
        self.rounds = 1 if QUICK else int(os.environ.get('BENCH_ROUNDS', '3'))
        self.seconds = 2.0 if QUICK else float(os.environ.get('BENCH_SECONDS', '15'))
        self.shards = os.path.join(data, 'emoji-{000..007}.tar')
        self.tokenizer = os.path.join(data, 'spm.model')

    def program(self, name):
        return os.path.join(self.build, 'bench', name)


def sample(values, digits=1):
    """Raw values with their median and spread."""
    return {'median': round(statistics.median(values), digits),
            'min': round(min(values), digits), 'max': round(max(values), digits),
            'all': [round(v, digits) for v in values]}


def ratio(ours, theirs, digits=2):
    """Of values measured in turn: the ratio of each pair, and their median."""
    return sample([a / b for a, b in zip(ours, theirs)], digits)


def git(*arguments):
    done = subprocess.run(['git', *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ''


def machine(context):
    about = json.loads(Run([context.tessera, 'doctor', '--json']).out)
    return {'processor': about['processor']['model'], 'cores': about['processor']['cores_usable'],
            'isa': about['tessera_will_use']['instruction_set'],
            'memory_gib': round(about['memory']['total_bytes'] / 2 ** 30, 1),
            'kernel': about['system']['kernel'], 'onednn': about['libraries']['onednn'],
            'tessera': about['system']['tessera']}


def write(context, name, content, folder=None, command=None, card=None):
    """bench/results/NAME.json, whole or not at all."""
    folder = folder or (os.path.join(context.work, 'results') if QUICK else 'bench/results')
    os.makedirs(folder, exist_ok=True)
    changed = bool(git('status', '--porcelain', '--untracked-files=no', '--', 'src', 'include',
                       'bench/*.c', 'bench/*.py', 'recipes', 'Makefile'))
    head = {'bench': name, 'date': datetime.date.today().isoformat(),
            'commit': os.environ.get('TESSERA_COMMIT') or
                      git('rev-parse', '--short=12', 'HEAD') + ('+changes' if changed else ''),
            'command': command or 'script/bench ' + name, 'quick': QUICK,
            'machine': {**machine(context), **(card or {})}}
    path = os.path.join(folder, name + '.json')
    with open(path + '.part', 'w', encoding='utf-8') as f:
        json.dump({**head, **content}, f, indent=1, ensure_ascii=False)
        f.write('\n')
    os.rename(path + '.part', path)
    say('-> ' + path)


def median_load():
    """Processes that wanted to run during the last minute: above the cores, figures are low."""
    return round(os.getloadavg()[0], 2)
