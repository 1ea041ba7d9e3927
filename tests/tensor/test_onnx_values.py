#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The operators' cases as ONNX models: valid for onnx.checker, and the values that NumPy computes from
them are the CPU device's."""
import os
import sys
import tempfile

import numpy as np
import onnx_eval

build = os.environ.get("BUILD", "build")
if not os.path.exists(f"{build}/tests/tensor/test_onnx"):
    print("test_onnx is not built\n0 passed, 0 failed")
    sys.exit(0)
passed = failed = 0
with tempfile.TemporaryDirectory() as folder:
    for path, values in onnx_eval.operator_cases(build, folder):
        tensors = onnx_eval.read_safetensors(values)
        want = tensors.pop("y")
        got = onnx_eval.Model(path).run(**tensors)["y"]
        off = np.abs(got - want).max() if got.shape == want.shape else np.inf
        limit = 2e-5 * max(1, np.abs(want).max())
        if off <= limit:
            passed += 1
        else:
            failed += 1
            print(f"FAILED: {os.path.basename(path)}: off by {off}, {got.shape} {want.shape}")
print(f"{passed} passed, {failed} failed")
sys.exit(failed > 0 or passed < 25)
