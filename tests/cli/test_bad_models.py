#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Hostile and broken model directories of every family through the program: each is one clear
message and exit status 1 within bounded time and memory, or opens as if nothing were.

A row is a name, the model it damages, what is done to a copy, and words that the message must have.
TRACE=1 prints every message."""
import json
import os
import struct
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import hostile  # noqa: E402
import tiny  # noqa: E402
from hostile import load, packed, read, save, tensors_of, write  # noqa: E402

TRACE = os.environ.get("TRACE")
NAN = struct.pack("<f", float("nan"))


# ---- what is done to a copy ---------------------------------------------------------------------

def on_weights(change, pad=0):
    """change(tensors): name -> [dtype, shape, bytes]."""
    def do(model):
        path = f"{model}/{hostile.weights_name(model)}"
        tensors = tensors_of(path)
        tensors = change(tensors) or tensors
        save(path, tensors, pad)
    return do


def on_header(change):
    """change(header, data) -> the file's bytes."""
    def do(model):
        path = f"{model}/{hostile.weights_name(model)}"
        write(path, change(*load(path)))
    return do


def on_json(file, change):
    def do(model):
        with open(f"{model}/{file}", encoding="utf-8") as f:
            root = json.load(f)
        root = change(root) or root
        write(f"{model}/{file}", json.dumps(root))
    return do


def setting(file, *path):
    """The value at a path of keys, the last item, in a JSON file."""
    *keys, last, value = path

    def change(root):
        at = root
        for key in keys:
            at = at[key]
        at[last] = value
    return on_json(file, change)


def with_file(file, data):
    def do(model):
        os.makedirs(os.path.dirname(f"{model}/{file}"), exist_ok=True)
        write(f"{model}/{file}", data() if callable(data) else data)
    return do


def nth(tensors, rank):
    """The first name of a tensor of this rank."""
    return next(n for n, t in tensors.items() if len(t[1]) == rank and t[1] != [1, 1])


def drop(tensors):
    del tensors[nth(tensors, 2)]


def add(tensors):
    tensors["frobnicator.weight"] = ["F32", [2], b"\0" * 8]


def turn(tensors):
    name = next(n for n, t in tensors.items() if len(t[1]) == 2 and t[1][0] != t[1][1])
    tensors[name][1].reverse()


def flatten(tensors):
    shape = tensors[nth(tensors, 2)][1]
    shape[:] = [shape[0] * shape[1]]


def empty_tensor(tensors):
    tensors[nth(tensors, 2)][1:] = [[0, 16], b""]


def poison(tensors):
    t = tensors[nth(tensors, 2)]
    t[2] = t[2][:-4] + NAN


def poison_table(tensors):
    """Used where it lies: found when a text meets it."""
    t = tensors["token_embedding.weight"]
    t[2] = NAN * (len(t[2]) // 4)


def infinite_scalar(tensors):
    t = next(t for t in tensors.values() if len(t[2]) == 4)
    t[2] = struct.pack("<f", float("inf"))


def retype(dtype, size):
    def change(tensors):
        t = tensors[nth(tensors, 2)]
        t[0], t[2] = dtype, b"\0" * (t[1][0] * t[1][1] * size)
    return on_weights(change)


def many(n):
    def change(tensors):
        for i in range(n):
            tensors[f"many.{i}"] = ["F32", [1], b"\0" * 4]
    return on_weights(change)


def many_alone(n):
    """A model that is nothing but tiny tensors."""
    return on_weights(lambda _: {f"many.{i}": ["F32", [1], b"\0" * 4] for i in range(n)})


def long_header(begin, middle, end):
    """A header of 99 MB, its middle repeated, written piece by piece: the size of this process
    counts as the program's, which it becomes."""
    def do(model):
        n = (99000000 - len(begin) - len(end)) // len(middle)
        with open(f"{model}/model.safetensors", "wb") as f:
            f.write(struct.pack("<Q", len(begin) + n * len(middle) + len(end)) + begin)
            for _ in range(n // 1000):
                f.write(middle * 1000)
            f.write(middle * (n % 1000) + end + b"\0" * 4)
    return do


def long_file(file, begin, middle, n, end):
    def do(model):
        with open(f"{model}/{file}", "wb") as f:
            f.write(begin)
            for _ in range(n // 1000):
                f.write(middle * 1000)
            f.write(end)
    return do


def swap_offsets(header, data):
    """Two neighbours whose data lie over each other."""
    a, b = [t for n, t in header.items() if n != "__metadata__"][:2]
    a["data_offsets"] = [b["data_offsets"][0], b["data_offsets"][0] + a["data_offsets"][1] -
                         a["data_offsets"][0]]
    return packed(header, data)


def hole(header, data):
    for t in header.values():
        if "data_offsets" in t:
            t["data_offsets"] = [x + 64 for x in t["data_offsets"]]
    return packed(header, b"\0" * 64 + data)


def first(header):
    return next(t for n, t in header.items() if n != "__metadata__")


def with_entry(**fields):
    def change(header, data):
        first(header).update(fields)
        return packed(header, data)
    return on_header(change)


def twice(header, data):
    name = next(n for n in header if n != "__metadata__")
    text = json.dumps(header)
    return packed((text[:-1] + f", {json.dumps(name)}: {json.dumps(header[name])}}}").encode(), data)


def nested_metadata(header, data):
    text = json.dumps(header)
    return packed(('{"__metadata__": ' + '{"a":' * 100000 + "1" + "}" * 100000 + ", " +
                   text[1:]).encode(), data)


def cut(header, data):
    return packed(header, data[:len(data) // 2])


def cut_header(header, data):
    return packed(header, data)[:100]


def vocabulary(model):
    """A tokenizer.json, as WordPiece or Unigram, or nothing where there is none."""
    with open(f"{model}/tokenizer.json", encoding="utf-8") as f:
        return json.load(f)


def wordpiece(**vocab):
    """A tokenizer.json with these pieces changed; None takes one away."""
    def change(root):
        pieces = root["model"]["vocab"]
        for name, value in vocab.items():
            pieces[name] = value
    return on_json("tokenizer.json", change)


def same_id(root):
    names = list(root["model"]["vocab"])
    root["model"]["vocab"][names[-1]] = root["model"]["vocab"][names[-2]]


def a_piece_less(root):
    del root["model"]["vocab"][list(root["model"]["vocab"])[-1]]


def a_piece_more(root):
    vocab = root["model"]["vocab"]
    vocab["zzzz"] = len(vocab)


def unigram(pieces):
    def change(root):
        root["model"]["vocab"] += pieces
    return on_json("tokenizer.json", change)


def bpe(vocab, merges):
    return with_file("tokenizer.json", json.dumps(
        {"version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": None,
         "post_processor": None, "decoder": None,
         "model": {"type": "BPE", "vocab": vocab, "merges": merges}}))


def loop(name):
    def do(model):
        if os.path.lexists(f"{model}/{name}"):
            os.remove(f"{model}/{name}")
        os.symlink(name, f"{model}/{name}")
    return do


def as_directory(name):
    def do(model):
        os.remove(f"{model}/{name}")
        os.mkdir(f"{model}/{name}")
    return do


def as_fifo(name):
    def do(model):
        os.remove(f"{model}/{name}")
        os.mkfifo(f"{model}/{name}")
    return do


def index(change):
    return on_json("model.safetensors.index.json", change)


def many_files(root):
    for i in range(5000):
        root["weight_map"][f"t{i}"] = f"model-{i:05d}.safetensors"


# ---- the table ----------------------------------------------------------------------------------

OPENCLIP, HF, TOKENIZER = "open_clip_config.json", "config.json", "tokenizer.json"
FAMILIES = ("openclip", "timm", "clip", "shards", "siglip", "bert", "xlmr", "st", "dense")
# The language model's head, which comes first in this file, is not read.
PASSED_OVER = ("a missing tensor", "a flat tensor", "an empty tensor", "NaN")
# Kinds of value that a size may not have; each size meets one of every kind, in turn.
SIZES = ((2**31, 10**9, 2**62), (-1, 0), (1.5, "12", None, [1], True))


def weights_rows():
    """The same damage to the weights of every family."""
    damage = [
        ("a missing tensor", on_weights(drop), ["missing "]),
        ("an extra tensor", on_weights(add), ["unexpected frobnicator.weight"]),
        ("a transposed tensor", on_weights(turn), ["transposed ", "expected (", "found ("]),
        ("a flat tensor", on_weights(flatten), ["misshapen "]),
        ("an empty tensor", on_weights(empty_tensor), ["misshapen "]),
        ("NaN", on_weights(poison), ["NaN or infinity in "]),
        ("offsets over each other", on_header(swap_offsets), ["begins at byte"]),
        ("a hole", on_header(hole), ["begins at byte"]),
        ("cut data", on_header(cut), ["lie outside"]),
        ("a cut header", on_header(cut_header), ["no safetensors header"]),
        ("a name twice", on_header(twice), ["duplicate"]),
        ("offsets beyond the file", with_entry(data_offsets=[0, 2**40]), ["lie outside"]),
    ]
    for base in FAMILIES:
        for what, do, words in damage:
            if base == "shards" and what in ("a missing tensor", "an extra tensor"):
                words = ["model.safetensors.index.json"]
            if base == "xlmr" and what in PASSED_OVER:
                words = None
            else:
                words = ["safetensors", *words]
            if base == "openclip" and what == "NaN":
                words = ["token_embedding.weight is NaN"]
                do = on_weights(poison_table)
            yield f"{base}: {what}", base, do, words


def header_rows():
    for dtype, size in (("F64", 8), ("I64", 8), ("F8_E4M3", 1), ("I8", 1), ("BOOL", 1), ("U16", 2)):
        for base in ("clip", "st"):
            yield f"{base}: {dtype} weights", base, retype(dtype, size), ["safetensors", "no float type in", f"({dtype})"]
    yield "openclip: infinity in a scalar", "openclip", on_weights(infinite_scalar), [
        "NaN or infinity in logit_scale"]
    for base in ("openclip", "clip", "st"):
        yield f"{base}: 100,000 tensors more", base, many(100000), ["unexpected many.", " more"]
    yield "clip: 100,000 tensors alone", "clip", many_alone(100000), ["missing "]
    entry = b'":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    yield "clip: a name of 99 MB", "clip", long_header(b'{"', b"n", entry), ["missing "]
    yield "clip: a header of 99 MB of spaces", "clip", long_header(b'{"n' + entry[:-1], b" ", b"}"), [
        "missing "]
    yield "clip: a header of 99 MB of shape", "clip", long_header(
        b'{"n":{"dtype":"F32","data_offsets":[0,4],"shape":[1', b",1", b"]}}"), ["99000000 bytes", "values"]
    yield "clip: a header of 99 MB of brackets", "clip", long_header(b'{"n":', b"[", b"]}"), [
        "depth"]
    yield "st: deep metadata", "st", on_header(nested_metadata), ["model.safetensors"]
    for key, value in (("dtype", 7), ("dtype", "f32"), ("dtype", None), ("shape", "2"),
                       ("shape", [2.5]), ("shape", [1] * 40), ("shape", None),
                       ("data_offsets", [0]), ("data_offsets", ["0", "4"]),
                       ("data_offsets", None), ("data_offsets", [0, 1e300])):
        yield f"clip: {key} {json.dumps(value)[:20]}", "clip", with_entry(**{key: value}), [
            "model.safetensors"]


def config_rows():
    """Every size of every config, too large, negative, and of another kind."""
    sizes = {
        "openclip": (OPENCLIP, [("model_cfg", "embed_dim")] +
                     [("model_cfg", "vision_cfg", k) for k in
                      ("image_size", "layers", "width", "head_width", "patch_size", "mlp_ratio")] +
                     [("model_cfg", "text_cfg", k) for k in
                      ("context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio")] +
                     [("preprocess_cfg", "size")]),
        "clip": (HF, [("projection_dim",)] +
                 [("text_config", k) for k in
                  ("hidden_size", "intermediate_size", "max_position_embeddings",
                   "num_attention_heads", "num_hidden_layers", "vocab_size", "eos_token_id")] +
                 [("vision_config", k) for k in
                  ("hidden_size", "image_size", "intermediate_size", "num_attention_heads",
                   "num_hidden_layers", "patch_size", "layer_norm_eps")]),
        "st": (HF, [(k,) for k in
                    ("hidden_size", "intermediate_size", "max_position_embeddings",
                     "num_attention_heads", "num_hidden_layers", "type_vocab_size", "vocab_size",
                     "layer_norm_eps")]),
    }
    every = [(base, file, path) for base, (file, paths) in sizes.items() for path in paths]
    for i, (base, file, path) in enumerate(every):
        for value in (kind[i % len(kind)] for kind in SIZES):
            yield (f"{base}: {path[-1]} of {path[0]} {json.dumps(value)}", base,
                   setting(file, *path, value), None)


def known_rows():
    yield "openclip: a pooling", "openclip", setting(
        OPENCLIP, "model_cfg", "text_cfg", "pool_type", "frobnicate"), ["pool_type"]
    yield "clip: an activation", "clip", setting(
        HF, "vision_config", "hidden_act", "frob"), ["vision_config.hidden_act", "frob"]
    yield "siglip: an activation", "siglip", setting(
        HF, "text_config", "hidden_act", "frob"), ["text_config.hidden_act", "frob"]
    yield "xlmr: an activation", "xlmr", setting(HF, "hidden_act", "frob"), ["hidden_act", "frob"]
    yield "xlmr: a kind of positions", "xlmr", setting(
        HF, "position_embedding_type", "relative_key"), ["position_embedding_type"]
    yield "a kind of model", "xlmr", setting(HF, "model_type", "llama"), ["llama"]
    yield "st: a pooling", "st", setting(
        "1_Pooling/config.json", "pooling_mode_frob_tokens", True), ["frob"]
    yield "dense: an activation", "dense", setting(
        "2_Dense/config.json", "activation_function", "torch.nn.modules.activation.Frob"), ["Frob"]
    yield "dense: a matrix of another model", "dense", setting(
        "2_Dense/config.json", "in_features", 7), ["in_features"]
    for path in ("../../etc", "/etc", "1_Pooling/../../x", "..", "1_Pooling\0x", "a" * 5000):
        yield f"st: a module at {path[:20]!r}", "st", setting("modules.json", 1, "path", path), [
            "modules.json"]
    yield "st: a hundred thousand modules", "st", on_json(
        "modules.json", lambda r: r + [r[2]] * 100000), ["modules.json"]
    yield "dense: a thousand matrices", "dense", on_json(
        "modules.json", lambda r: r[:2] + [r[2]] * 1000), ["modules.json"]
    for text in ("[]", "{}", "17", "null", '["x"]', "[[]]", '[{"idx": 0}]', "", "\0", "\xff"):
        yield f"st: modules.json {text!r}", "st", with_file(
            "modules.json", text.encode("latin-1")), ["modules.json"]
    for text in ("[]", "17", "null", "", '"x"', "{", "{}", "\xff\xfe{}", '{"a":1,"a":2}',
                 "[" * 100000):
        yield f"clip: config.json {text[:12]!r}", "clip", with_file(
            HF, text.encode("latin-1")), ["model/config.json"]
        yield f"openclip: config {text[:12]!r}", "openclip", with_file(
            OPENCLIP, text.encode("latin-1")), [OPENCLIP]


def tokenizer_rows():
    yield "bert: a piece less", "bert", on_json(TOKENIZER, a_piece_less), None
    yield "bert: a piece more", "bert", on_json(TOKENIZER, a_piece_more), ["86", "85"]
    yield "bert: one id twice", "bert", on_json(TOKENIZER, same_id), [TOKENIZER]
    yield "bert: an id of 2^31", "bert", wordpiece(zz=2**31), [TOKENIZER]
    yield "bert: an id of 10^9", "bert", wordpiece(zz=10**9), [TOKENIZER]
    yield "bert: a negative id", "bert", wordpiece(zz=-3), [TOKENIZER]
    yield "bert: an id that is none", "bert", wordpiece(zz="4"), [TOKENIZER]
    yield "bert: a gap in the ids", "bert", wordpiece(zz=200), []
    yield "xlmr: a piece that is none", "xlmr", unigram([["x"]]), [TOKENIZER]
    yield "xlmr: a score that is none", "xlmr", unigram([["x", "y"]]), [TOKENIZER]
    yield "xlmr: a score beyond floats", "xlmr", on_json(
        TOKENIZER, lambda r: r["model"]["vocab"][5].__setitem__(1, -1e308)), None
    yield "xlmr: a piece twice", "xlmr", on_json(
        TOKENIZER, lambda r: r["model"]["vocab"].append(r["model"]["vocab"][5])), [TOKENIZER]
    yield "bert: a merge of unknown pieces", "bert", bpe({"a": 0, "b": 1}, ["a b"]), [TOKENIZER]
    yield "bert: a merge of one piece", "bert", bpe({"a": 0, "b": 1}, ["a"]), [TOKENIZER]
    yield "bert: merges that are none", "bert", bpe({"a": 0, "b": 1}, [[1, 2]]), [TOKENIZER]
    yield "bert: merges that go in circles", "bert", bpe(
        {"a": 0, "aa": 1, "aaa": 2}, ["a a", "aa a", "aaa a"]), [TOKENIZER]
    yield "bert: an empty tokenizer.json", "bert", with_file(TOKENIZER, ""), [TOKENIZER]
    yield "bert: a tokenizer.json of 100 MB of spaces", "bert", long_file(
        TOKENIZER, b"", b" ", 100000000, b""), [TOKENIZER]
    yield "bert: a piece of 100 MB", "bert", long_file(
        TOKENIZER, b'{"model": {"type": "WordPiece", "vocab": {"', b"a", 100000000,
        b'": 0}}}'), [TOKENIZER, "100000000 bytes"]
    yield "bert: a million brackets", "bert", with_file(TOKENIZER, b"[" * 1000000), [TOKENIZER]
    for part in ("normalizer", "pre_tokenizer", "post_processor"):
        for value in ({"type": "Frob"}, {"type": 7}, 7, [], {"type": "Sequence"}):
            yield f"bert: {part} {json.dumps(value)}", "bert", setting(TOKENIZER, part, value), [
                TOKENIZER]
        nested = {"type": "Sequence", "normalizers": [], "pretokenizers": [], "processors": []}
        for _ in range(200):
            key = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers",
                   "post_processor": "processors"}[part]
            nested = {"type": "Sequence", key: [nested]}
        yield f"bert: a deep {part}", "bert", setting(TOKENIZER, part, nested), None
    yield "bert: an added token beyond the vocabulary", "bert", on_json(
        TOKENIZER, lambda r: r["added_tokens"].append(
            {**r["added_tokens"][0], "id": 10**9, "content": "zz"})), [TOKENIZER]
    yield "bert: an added token that is empty", "bert", on_json(
        TOKENIZER, lambda r: r["added_tokens"].append(
            {**r["added_tokens"][0], "id": 85, "content": ""})), None
    yield "clip: no tokenizer", "clip", lambda m: os.remove(f"{m}/tokenizer.model"), ["tokenizer"]
    yield "st: a tokenizer_config that is none", "st", with_file(
        "tokenizer_config.json", "[1"), ["tokenizer_config.json"]
    yield "st: special tokens that are none", "st", with_file(
        "special_tokens_map.json", "{\"pad_token\": 7}"), None


def place_rows():
    """Files that are no files, shards, and what lies beside."""
    for base in ("openclip", "clip", "st"):
        config = OPENCLIP if base == "openclip" else HF
        weights = hostile.weights_name(hostile.BASES[base])
        for what, make in (("a loop of links", loop), ("a directory", as_directory)):
            yield f"{base}: the config is {what}", base, make(config), [config]
            yield f"{base}: the weights are {what}", base, make(weights), [weights]
        yield f"{base}: the weights are a pipe", base, as_fifo(weights), [weights, "regular file"]
        yield f"{base}: no weights", base, lambda m, w=weights: os.remove(f"{m}/{w}"), [weights]
    yield "st: the pooling is a file", "st", lambda m: (tiny.remove(f"{m}/1_Pooling"), write(
        f"{m}/1_Pooling", b"")), ["1_Pooling"]
    for value in ({}, [], None, {"a": 7}, {"a": "../x"}, {"a": ""}, {"a": "."}, {"a": "a\0b"},
                  {"a": "x" * 5000}, {"a": "model.safetensors.index.json"}):
        yield f"shards: weight_map {json.dumps(value)[:30]}", "shards", index(
            lambda r, v=value: {**r, "weight_map": v}), ["model.safetensors.index.json"]
    yield "shards: five thousand files", "shards", index(many_files), ["weight_map"]
    yield "shards: a file that is empty", "shards", with_file(
        "model-00002-of-00002.safetensors", b""), ["model-00002-of-00002.safetensors"]
    yield "shards: the same file twice", "shards", lambda m: write(
        f"{m}/model-00002-of-00002.safetensors",
        read(f"{m}/model-00001-of-00002.safetensors")), ["model-00001-of-00002.safetensors"]
    yield "clip: a preprocessor that is none", "clip", with_file(
        "preprocessor_config.json", "[]"), ["preprocessor_config.json"]
    for key, value in (("image_mean", [0.5]), ("image_mean", "x"), ("image_std", [0, 0, 0]),
                       ("size", {"shortest_edge": 10**9}), ("crop_size", -4),
                       ("image_std", [-1, 1, 1])):
        yield f"clip: {key} {value}", "clip", setting("preprocessor_config.json", key, value), [
            "preprocessor_config.json", key]


def run_row(work, row, verb):
    what, base, do, words = row
    model = f"{work}/model"
    hostile.copy(base, model)
    do(model)
    done = hostile.Ended(*verb(model))
    if TRACE:
        print(f"{what}\n    {done.returncode} {done.seconds:.2f} s {done.megabytes:.0f} MB "
              f"{done.stderr.decode(errors='replace').strip()[:400]}")
    if words is None and done.returncode == 0:
        words = []
        done.returncode, done.stderr = 1, b"tessera: it opens, as it may" + done.stderr
    wrong = hostile.problem(done, words or [])
    tiny.check(what, not wrong, wrong)


def embed(model):
    return ["embed", "--model", model, "--text", "a red cat"]


def rows():
    for part in (weights_rows, header_rows, config_rows, known_rows, tokenizer_rows, place_rows):
        yield from part()


def main():
    os.chdir(tiny.ROOT)
    if "san" in os.path.basename(tiny.BUILD):
        hostile.SLOW = 8
    work = tiny.work_dir()
    only = sys.argv[1] if len(sys.argv) > 1 else ""
    for row in rows():
        if only in row[0]:
            run_row(work, row, embed)
    tiny.remove(work)
    tiny.finish()


if __name__ == "__main__":
    main()
