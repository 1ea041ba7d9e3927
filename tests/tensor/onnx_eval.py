# SPDX-License-Identifier: Apache-2.0
"""ONNX models computed by NumPy in f64, for the operators that Tessera emits: a second reading of
ONNX's operator specification (opset 17), where no runtime is at hand.  An operator or attribute that
is not in the table is an error, so that nothing passes by being overlooked."""
import math
import os

import numpy as np
import onnx
from onnx import numpy_helper

erf = np.vectorize(math.erf, otypes=[np.float64])


def softmax(x, axis):
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def layernorm(x, weight, bias, axis, epsilon):
    assert axis == -1
    mean = x.mean(axis=-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(axis=-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + epsilon) * weight + bias


def reshape(x, shape):
    return x.reshape([x.shape[i] if d == 0 else d for i, d in enumerate(shape)])


def strided_slice(x, begin, end, axes):
    cut = [slice(None)] * x.ndim
    for b, e, a in zip(begin, end, axes):
        cut[a] = slice(b, e)
    return x[tuple(cut)]


def gather(x, ids, axis=0):
    assert ids.size == 0 or (ids.min() >= -x.shape[axis] and ids.max() < x.shape[axis]), "index"
    return np.take(x, ids, axis=axis)


def gather_nd(x, ids, batch_dims):
    assert batch_dims == 1 and ids.shape[-1] == 1
    return np.stack([x[b, ids[b, 0]] for b in range(len(x))])


def unsqueeze(x, axes):
    for a in sorted(axes):
        x = np.expand_dims(x, a)
    return x


def cumsum(x, axis, exclusive=0):
    y = np.cumsum(x, axis=int(axis), dtype=x.dtype)
    return y - x if exclusive else y


def cast(x, to):
    kind = {onnx.TensorProto.FLOAT: np.float64, onnx.TensorProto.FLOAT16: np.float64,
            onnx.TensorProto.INT64: np.int64, onnx.TensorProto.INT32: np.int32,
            onnx.TensorProto.BOOL: np.bool_}[to]
    return x.astype(kind)


OPERATORS = {
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide, "Max": np.maximum,
    "MatMul": np.matmul, "Sqrt": np.sqrt, "Tanh": np.tanh, "Erf": erf, "Where": np.where,
    "Equal": np.equal, "LessOrEqual": np.less_equal, "Less": np.less, "And": np.logical_and, "Expand":
    lambda x, shape: x * np.ones(shape, x.dtype), "Range": np.arange, "Identity": lambda x: x,
    "Relu": lambda x: np.maximum(x, 0), "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "Softmax": softmax, "LayerNormalization": layernorm, "Reshape": reshape,
    "Transpose": lambda x, perm: x.transpose(perm), "Slice": strided_slice, "Gather": gather,
    "GatherND": gather_nd, "Unsqueeze": unsqueeze, "Cast": cast, "CumSum": cumsum,
    "Squeeze": lambda x, axes=None: np.squeeze(x, None if axes is None else tuple(axes)),
    "Concat": lambda *x, axis: np.concatenate(x, axis), "Shape":
    lambda x, start=0, end=None: np.array(x.shape[start:end], np.int64),
    "Split": lambda x, axis, parts: np.split(x, parts, axis), "ReduceSum":
    lambda x, axes, keepdims=1: x.sum(axis=tuple(axes), keepdims=bool(keepdims)), "ReduceMean":
    lambda x, axes, keepdims=1: x.mean(axis=tuple(axes), keepdims=bool(keepdims)), "ReduceL2":
    lambda x, axes, keepdims=1: np.sqrt((x * x).sum(axis=tuple(axes), keepdims=bool(keepdims))),
}


def wide(x):
    return x.astype(np.float64) if x.dtype in (np.float32, np.float16) else x


class Model:
    """A model of a file, checked by onnx.checker; run(name=array) gives its outputs by name."""

    def __init__(self, path):
        # Not check_model(path, full_check=True), which writes what it infers into the file.
        onnx.checker.check_model(path)
        bare = onnx.load(path, load_external_data=False)
        onnx.shape_inference.infer_shapes(bare, check_type=True, strict_mode=True)
        self.proto = onnx.load(path)
        assert self.proto.opset_import[0].version == 17
        self.constants = {t.name: wide(numpy_helper.to_array(t))
                          for t in self.proto.graph.initializer}
        self.external = [t.name for t in bare.graph.initializer
                         if t.data_location == onnx.TensorProto.EXTERNAL]
        self.inputs = {i.name: [d.dim_param or d.dim_value for d in i.type.tensor_type.shape.dim]
                       for i in self.proto.graph.input}
        self.types = {i.name: i.type.tensor_type.elem_type for i in self.proto.graph.input}

    def run(self, **inputs):
        assert set(inputs) == set(self.inputs), (set(inputs), set(self.inputs))
        values = dict(self.constants)
        for name, x in inputs.items():
            want = onnx.helper.make_tensor_value_info("", self.types[name], None)
            assert onnx.mapping.NP_TYPE_TO_TENSOR_TYPE[x.dtype] == want.type.tensor_type.elem_type
            for have, dim in zip(x.shape, self.inputs[name]):
                assert isinstance(dim, str) or have == dim, (name, x.shape, self.inputs[name])
            values[name] = wide(x)
        for node in self.proto.graph.node:
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            if node.op_type == "Split":
                attributes["parts"] = len(node.output)
            y = OPERATORS[node.op_type](*(values[n] for n in node.input), **attributes)
            outputs = y if node.op_type == "Split" else [y]
            values.update(zip(node.output, outputs))
        return {o.name: values[o.name] for o in self.proto.graph.output}


def read_safetensors(path):
    """Name -> array of a file of F32, I32, U8."""
    import json
    with open(path, "rb") as f:
        n = int.from_bytes(f.read(8), "little")
        header, data = json.loads(f.read(n)), f.read()
    kinds = {"F32": np.float32, "I32": np.int32, "U8": np.uint8}
    return {name: np.frombuffer(data[t["data_offsets"][0]:t["data_offsets"][1]],
                                kinds[t["dtype"]]).reshape(t["shape"])
            for name, t in header.items() if name != "__metadata__"}


def operator_cases(build, folder):
    """Lets the test program leave the operators' cases in a folder; pairs of paths."""
    import subprocess
    os.makedirs(folder, exist_ok=True)
    subprocess.run([os.path.join(build, "tests/tensor/test_onnx")], check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                   env={**os.environ, "TESS_ONNX_CASES": folder})
    names = sorted(n[:-5] for n in os.listdir(folder) if n.endswith(".onnx"))
    return [(f"{folder}/{n}.onnx", f"{folder}/{n}.safetensors") for n in names]
