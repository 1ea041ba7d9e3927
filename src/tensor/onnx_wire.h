/* SPDX-License-Identifier: Apache-2.0 */
/* Protocol-buffer fields appended to a buffer: what ONNX's messages are made of. */
#ifndef TESSERA_TENSOR_ONNX_WIRE_H
#define TESSERA_TENSOR_ONNX_WIRE_H

#include "tessera/tensor.h"

void tess__wire_varint(tess_buf *b, uint64_t x);
int tess__wire_varint_bytes(uint64_t x);
void tess__wire_int(tess_buf *b, int field, int64_t x);
void tess__wire_float(tess_buf *b, int field, float x);
void tess__wire_string(tess_buf *b, int field, const char *s);
void tess__wire_message(tess_buf *b, int field, const tess_buf *inner);
/* Tag and length of n_bytes that follow by themselves. */
void tess__wire_begin(tess_buf *b, int field, uint64_t n_bytes);

/* ONNX's fields and numbers, from onnx.proto of IR version 8. */
enum {
    ONNX_IR_VERSION = 8,
    ONNX_OPSET = 17,

    MODEL_IR_VERSION = 1,
    MODEL_PRODUCER_NAME = 2,
    MODEL_PRODUCER_VERSION = 3,
    MODEL_GRAPH = 7,
    MODEL_OPSET_IMPORT = 8,
    OPSET_VERSION = 2,

    GRAPH_NODE = 1,
    GRAPH_NAME = 2,
    GRAPH_INITIALIZER = 5,
    GRAPH_INPUT = 11,
    GRAPH_OUTPUT = 12,

    NODE_INPUT = 1,
    NODE_OUTPUT = 2,
    NODE_NAME = 3,
    NODE_OP_TYPE = 4,
    NODE_ATTRIBUTE = 5,

    ATTRIBUTE_NAME = 1,
    ATTRIBUTE_F = 2,
    ATTRIBUTE_I = 3,
    ATTRIBUTE_INTS = 8,
    ATTRIBUTE_TYPE = 20,
    ATTRIBUTE_TYPE_FLOAT = 1,
    ATTRIBUTE_TYPE_INT = 2,
    ATTRIBUTE_TYPE_INTS = 7,

    TENSOR_DIMS = 1,
    TENSOR_DATA_TYPE = 2,
    TENSOR_NAME = 8,
    TENSOR_RAW_DATA = 9,
    TENSOR_EXTERNAL_DATA = 13,
    TENSOR_DATA_LOCATION = 14,
    TENSOR_LOCATION_EXTERNAL = 1,
    ENTRY_KEY = 1,
    ENTRY_VALUE = 2,

    VALUE_INFO_NAME = 1,
    VALUE_INFO_TYPE = 2,
    TYPE_TENSOR = 1,
    TENSOR_TYPE_ELEM = 1,
    TENSOR_TYPE_SHAPE = 2,
    SHAPE_DIM = 1,
    DIM_VALUE = 1,
    DIM_PARAM = 2,
};

#endif
