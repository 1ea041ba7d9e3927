#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What script/gpu's stages came to, as bench/results/gpu_tests.json.

    gpu_summary.py [--build BUILD] [--out FOLDER] WORK CARD

WORK holds NAME.stage (name, exit status, seconds; tabs) and NAME.log of each stage, and report.json
of the benches; CARD is nvidia-smi's line of name, driver and memory.  Exit 1 when a stage failed or
a bench was left out.
"""
import argparse
import glob
import json
import os
import re
import sys

import common

TIMED_OUT = (124, 137)


def read_stage(work, path):
    with open(path, encoding='utf-8') as f:
        name, status, seconds = f.read().split('\t')
    with open(os.path.join(work, name + '.log'), encoding='utf-8', errors='replace') as f:
        log = f.read()
    out = {'ok': status == '0', 'seconds': int(seconds)}
    if status != '0':
        out['why'] = ('ran past its time' if int(status) in TIMED_OUT else
                      'exit status ' + status)
        out['end_of_log'] = log.splitlines()[-10:]
    passed = len(re.findall(r'^\[ +OK +\] ', log, re.M))
    if name.startswith('test_'):
        out['passed'] = passed
        # What the tests print of themselves: differences, tolerances, what a mode costs.
        out['said'] = [line for line in log.splitlines() if line and line[0] != '['][:40]
    summary = re.findall(r'^=+ (ERROR SUMMARY|RACECHECK SUMMARY): (.*)$', log, re.M)
    if summary:
        out['summary'] = summary[-1][1]
    return name, out


def read_report(work):
    """What became of each bench; none when they did not come to an end."""
    try:
        with open(os.path.join(work, 'report.json'), encoding='utf-8') as f:
            return json.load(f)
    except OSError:
        return {}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('work')
    parser.add_argument('card')
    parser.add_argument('--build', default='build')
    parser.add_argument('--out')
    o = parser.parse_args()
    stages = dict(read_stage(o.work, path)
                  for path in sorted(glob.glob(os.path.join(o.work, '*.stage'))))
    names = (o.card.splitlines()[0].split(', ') + ['', ''])[:3]
    ok = bool(stages) and all(s['ok'] for s in stages.values())
    common.write(common.Context(o.build, '', []), 'gpu_tests', {
        'what': 'tests on the card, memcheck and racecheck', 'ok': ok, 'stages': stages,
        'benches': read_report(o.work)}, o.out, 'script/gpu',
        dict(zip(('card', 'driver', 'card_memory'), names)))
    for name, stage in stages.items():
        if not stage['ok']:
            common.say('%s: %s' % (name, stage['why']))
    return int(not ok)


if __name__ == '__main__':
    sys.exit(main())
