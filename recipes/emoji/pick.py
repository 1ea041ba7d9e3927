#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Shards of some languages, and translated captions without pictures, out of the emoji shards.

    /usr/bin/python3 recipes/emoji/pick.py DIR OUT en de fr ...

DIR holds what prepare.py made.  OUT gets
    pictures.tar     every picture with its training captions in the first language alone
    captions.jsonl   {"key", "captions": {language: text}} of the training captions in all of them
    test.tar         every picture with its held-out captions in all of them
docs/mixtures.md trains on them.
"""
import glob
import io
import json
import os
import sys
import tarfile


def add(tar, name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def samples(folder):
    """Key, PNG and the parsed JSON of every emoji."""
    for path in sorted(glob.glob(os.path.join(folder, "emoji-*.tar"))):
        with tarfile.open(path) as tar:
            files = {m.name: tar.extractfile(m).read() for m in tar}
        for name in sorted(n for n in files if n.endswith(".json")):
            yield name[:-5], files[name[:-5] + ".png"], json.loads(files[name])


def some(captions, languages):
    return {l: captions[l] for l in languages if l in captions}


def main():
    folder, out, languages = sys.argv[1], sys.argv[2], sys.argv[3:]
    os.makedirs(out, exist_ok=True)
    with tarfile.open(f"{out}/pictures.tar", "w", format=tarfile.USTAR_FORMAT) as pictures, \
            tarfile.open(f"{out}/test.tar", "w", format=tarfile.USTAR_FORMAT) as test, \
            open(f"{out}/captions.jsonl", "w", encoding="utf-8") as texts:
        for key, png, about in samples(folder):
            known = some(about["captions"], languages)
            held_out = some(about["captions_test"], languages)
            for tar, captions in ((pictures, some(known, languages[:1])), (test, held_out)):
                if captions or tar is test:
                    add(tar, key + ".png", png)
                    add(tar, key + ".json", json.dumps({"captions": captions}).encode())
            if languages[0] in known and len(known) > 1:
                texts.write(json.dumps({"key": key, "captions": known}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
