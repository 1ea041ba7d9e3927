# SPDX-License-Identifier: Apache-2.0
"""tessera plan beside the trainings that it predicts: bytes that a rank holds and sends, and seconds
of a step.

The machine is measured (plan --measure: two blocks of each tower) between trainings, as one would
before a long run; what is compared are the medians of both, since a machine that others use is slower
at some times.  Trainings are of towers 2 to 5 times as deep.
"""
import importlib.util
import io
import json
import os
import shutil
import statistics
import tarfile

import common

PICTURES = 192
STEPS = 8
MPIRUN = ['mpirun', '--oversubscribe', '--bind-to', 'none', '-n']
SURROUNDINGS = {'OMPI_ALLOW_RUN_AS_ROOT': '1', 'OMPI_ALLOW_RUN_AS_ROOT_CONFIRM': '1',
                'OMPI_MCA_plm': 'isolated', 'OMPI_MCA_mpi_yield_when_idle': '1'}
# Width and blocks of the image tower, of the text tower; size of a patch.
SMALL, MIDDLE, WIDE = (256, 6, 256, 4, 32), (384, 8, 256, 6, 32), (768, 4, 512, 4, 32)
FINE = (192, 6, 192, 4, 16)
# Model, batch of a rank, ranks, precision, recompute, stage.
CONFIGURATIONS = [
    (SMALL, 32, 1, 'fp32', False, 0), (SMALL, 64, 1, 'fp32', True, 0),
    (SMALL, 32, 2, 'fp32', False, 0), (SMALL, 32, 1, 'bf16', False, 0),
    (MIDDLE, 16, 1, 'fp32', False, 0), (MIDDLE, 16, 2, 'fp32', True, 3),
    (MIDDLE, 32, 1, 'bf16', True, 0), (WIDE, 16, 1, 'fp32', False, 0),
    (WIDE, 32, 1, 'fp32', True, 0), (WIDE, 16, 2, 'fp32', False, 1),
    (FINE, 16, 1, 'fp32', False, 0), (FINE, 32, 1, 'fp32', True, 0),
    (FINE, 16, 2, 'bf16', False, 2), (MIDDLE, 48, 1, 'fp32', False, 0),
]


def tiny():
    """The tests' maker of small data."""
    spec = importlib.util.spec_from_file_location('make_tiny', 'tests/fixtures/train/make_tiny.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_data(folder, maker):
    os.makedirs(folder, exist_ok=True)
    shutil.copyfile('tests/fixtures/text/unigram.model', os.path.join(folder, 'spm.model'))
    texts = list(maker.sentences())
    with tarfile.open(os.path.join(folder, 'data.tar'), 'w', format=tarfile.USTAR_FORMAT) as tar:
        for i in range(PICTURES):
            for name, data in (('png', maker.picture(i)),
                               ('txt', texts[i % len(texts)].encode())):
                info = tarfile.TarInfo('%03d.%s' % (i, name))
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def make_model(folder, maker, shape):
    width, layers, text_width, text_layers, patch = shape
    path = os.path.join(folder, 'w%d_l%d_p%d.json' % (width, layers, patch))
    with open(path, 'w', encoding='utf-8') as f:
        json.dump({'model_cfg': {
            'embed_dim': 256,
            'vision_cfg': {'image_size': 224, 'patch_size': patch, 'width': width, 'layers': layers,
                           'head_width': 64},
            'text_cfg': {'context_length': 32, 'width': text_width, 'heads': text_width // 64,
                         'layers': text_layers, 'pool_type': 'last', 'eos_id': 2,
                         'vocab_size': maker.n_pieces('tests/fixtures/text/unigram.model'),
                         'tokenizer': 'spm.model'}}}, f)
    return path


def job(ranks, command, precision):
    env = dict(SURROUNDINGS, OMP_WAIT_POLICY='passive')
    if precision == 'bf16':
        env['TESSERA_ISA'] = 'avx512bf16'
    return common.Run([*(MPIRUN + [str(ranks)] if ranks > 1 else []), *command], env)


def train(context, folder, model, configuration):
    """The most tokens of a caption in a step, bytes held and sent, and seconds of steps after two."""
    _, batch, ranks, precision, recompute, stage = configuration
    shutil.rmtree(os.path.join(folder, 'logs'), ignore_errors=True)
    job(ranks, [context.tessera, 'train', '--train-data', os.path.join(folder, 'data.tar'),
                '--model', model, '--tokenizer', os.path.join(folder, 'spm.model'),
                '--caption-key', 'txt', '--batch-size', str(batch), '--steps', str(STEPS),
                '--precision', precision, '--logs', os.path.join(folder, 'logs'), '--name', 'run',
                '--log-every-n-steps', '1', '-j', '1', '--save-frequency', '1000000', '-q',
                *(['--grad-checkpointing'] if recompute else []),
                *(['--zero', str(stage)] if stage else [])], precision)
    with open(os.path.join(folder, 'logs/run/metrics.jsonl'), encoding='utf-8') as f:
        lines = [json.loads(line) for line in f]
    return {'tokens': max(x['train/tokens'] for x in lines),
            'held': sum(lines[-1]['train/' + k] for k in ('state_bytes', 'work_bytes',
                                                          'wire_buffer_bytes')),
            'wire': lines[-1]['train/wire_bytes'],
            'seconds': [x['train/batch_time'] for x in lines[2:]]}


def predict(context, folder, model, configuration, tokens):
    _, batch, ranks, precision, recompute, stage = configuration
    here = os.path.join(folder, 'here.json')
    line = [context.tessera, 'plan', '--model', model, '--batch-size', str(batch), '--precision',
            precision, '--tokens', '%.4f' % tokens]
    job(ranks, [*line, '--measure', '--seconds', '1.5', '-o', here], precision)
    found = json.loads(job(1, [*line, '--cluster', here, '--recompute', 'full' if recompute else 'off',
                               '--zero', str(stage), '--json'], precision).out)
    return found['parameters'], found['plans'][0]


def compare(context, folder, maker, configuration):
    shape, batch, ranks, precision, recompute, stage = configuration
    model = make_model(folder, maker, shape)
    measured, predicted = [train(context, folder, model, configuration)], []
    for i in range(context.rounds):
        parameters, plan = predict(context, folder, model, configuration, measured[0]['tokens'])
        predicted.append(plan)
        measured.append(train(context, folder, model, configuration))
    seconds = [x['seconds']['step'] for x in predicted]
    taken = [statistics.median(x['seconds']) for x in measured]
    held = plan['bytes']['total'] - plan['bytes']['inputs']  # those are the loader's
    row = {'image': list(shape[:2]), 'text': list(shape[2:4]), 'patch': shape[4],
           'parameters': parameters, 'batch_size': batch, 'ranks': ranks, 'precision': precision,
           'recompute': recompute, 'zero': stage, 'bound': plan['bound'],
           'predicted_bytes': held, 'measured_bytes': measured[0]['held'],
           'predicted_wire_bytes': plan['wire_bytes'], 'measured_wire_bytes': measured[0]['wire'],
           'predicted_seconds': common.sample(seconds, 4), 'measured_seconds': common.sample(taken, 4)}
    row['bytes_ratio'] = round(row['predicted_bytes'] / row['measured_bytes'], 4)
    row['wire_ratio'] = (round(plan['wire_bytes'] / measured[0]['wire'], 4)
                         if ranks > 1 else None)
    row['seconds_ratio'] = round(statistics.median(seconds) / statistics.median(taken), 3)
    common.say('%d x %d, %d x %d, batch %d, %d rank(s), %s%s, ZeRO %d: bytes %.3f, wire %s, seconds %.2f' %
               (*shape[:4], batch, ranks, precision, ', recompute' if recompute else '', stage,
                row['bytes_ratio'], row['wire_ratio'], row['seconds_ratio']))
    return row


def bench(context):
    folder = os.path.join(context.work, 'plan')
    maker = tiny()
    make_data(folder, maker)
    rows = [compare(context, folder, maker, c)
            for c in (CONFIGURATIONS[:2] if common.QUICK else CONFIGURATIONS)]
    shutil.rmtree(folder, ignore_errors=True)
    common.write(context, 'plan', {
        'what': 'tessera plan: predicted over measured bytes that a rank holds and sends, seconds of a step',
        'load': common.median_load(), 'steps': STEPS,
        'bytes_within': max(abs(r['bytes_ratio'] - 1) for r in rows),
        'wire_within': max([abs(r['wire_ratio'] - 1) for r in rows if r['wire_ratio']], default=None),
        'seconds_within': max(abs(r['seconds_ratio'] - 1) for r in rows), 'rows': rows})
