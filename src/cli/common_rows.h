/* SPDX-License-Identifier: Apache-2.0 */
/* Rows that several verbs have.  `values` is the verb's struct, with a field of the row's name;
 * what follows is added to the row. */
#ifndef TESSERA_CLI_COMMON_ROWS_H
#define TESSERA_CLI_COMMON_ROWS_H

#include "cli/option.h"

#define CLI_MODEL_OF(values, field, text)                                                          \
    {                                                                                              \
        .name = "model", .short_name = 'm', .kind = CLI_PATH, CLI_AT(values, field),               \
        .value = "DIR", .help = text                                                               \
    }
#define CLI_MODEL(values) CLI_MODEL_OF(values, model, "Model directory")

#define CLI_ADAPTER(values, field)                                                                 \
    {                                                                                              \
        .name = "adapter", .kind = CLI_LIST, CLI_AT(values, field), .value = "DIR[:WEIGHT]",       \
        .help = "Low-rank adapter to apply, times a weight; may be repeated"                       \
    }

#define CLI_DEVICE(values, field, ...)                                                             \
    {                                                                                              \
        .name = "device", .kind = CLI_CHOICE, .choices = "cpu|cuda", .fallback = "cpu",            \
        CLI_AT(values, field),                                                                     \
        .help = "Where to compute. cuda: the first NVIDIA card that CUDA_VISIBLE_DEVICES lets be " \
                "seen",                                                                            \
        __VA_ARGS__                                                                                \
    }

/* Names of classes and prompts around them. */
#define CLI_CLASSES(values, text, ...)                                                             \
    {                                                                                              \
        .name = "classes", .kind = CLI_PATH, CLI_AT(values, classes), .value = "FILE",             \
        .help = text, __VA_ARGS__                                                                  \
    }
#define CLI_TEMPLATES(values, text, ...)                                                           \
    {                                                                                              \
        .name = "templates", .kind = CLI_PATH, CLI_AT(values, templates), .value = "FILE",         \
        .help = text, __VA_ARGS__                                                                  \
    }

#define CLI_DATASET_TYPE(values, ...)                                                              \
    {                                                                                              \
        .name = "dataset-type", .kind = CLI_CHOICE,                                                \
        .choices = "auto|webdataset|csv|jsonl|folder|xtd10|crossmodal3600", .fallback = "auto",    \
        CLI_AT(values, dataset_type), .help = "What the sources are", __VA_ARGS__                  \
    }

#define CLI_WORKERS(values, text, ...)                                                             \
    {                                                                                              \
        .name = "workers", .short_name = 'j', .kind = CLI_INT, .fallback = "1", .min = 0,          \
        .max = 1024, CLI_AT(values, workers), .value = "N", .help = text, __VA_ARGS__              \
    }

/* Two rows: a record's text and its key. */
#define CLI_TEXT_KEYS(values)                                                                      \
    {.name = "text-key",                                                                           \
     .kind = CLI_STRING,                                                                           \
     .fallback = "text",                                                                           \
     CLI_AT(values, text_key),                                                                     \
     .value = "KEY",                                                                               \
     .help = "The field or column of the text"},                                                   \
    {                                                                                              \
        .name = "id-key", .kind = CLI_STRING, CLI_AT(values, id_key), .value = "KEY",              \
        .help = "The field or column of its key; default: key, else id, else the line's number"    \
    }

#endif
