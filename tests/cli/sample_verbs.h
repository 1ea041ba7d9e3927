/* SPDX-License-Identifier: Apache-2.0 */
/* A made-up program with an option of every kind, for the tests of the framework. */
#ifndef TESTS_CLI_SAMPLE_VERBS_H
#define TESTS_CLI_SAMPLE_VERBS_H

#include "cli/option.h"

#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef struct sample_values {
    bool fast, resampled;
    int64_t batch_size, steps;
    double lr;
    const char *name, *model, *precision;
    cli_list data;
} sample_values;

static const cli_option sample_options[] = {
    {.name = "data",
     .short_name = 'd',
     .kind = CLI_LIST,
     .value = "SOURCE",
     CLI_AT(sample_values, data),
     .group = "Data",
     .help = "Where the pictures are"},
    {.name = "dataset-resampled",
     CLI_AT(sample_values, resampled),
     .fallback = "true",
     .group = "Data",
     .help = "Each epoch is a new order"},
    {.name = "batch-size",
     .short_name = 'b',
     .kind = CLI_INT,
     .fallback = "64",
     .min = 1,
     .max = 65536,
     CLI_AT(sample_values, batch_size),
     .help = "Pictures a step"},
    {.name = "steps", .kind = CLI_INT, CLI_AT(sample_values, steps), .help = "Any whole number"},
    {.name = "lr",
     .kind = CLI_REAL,
     .fallback = "5e-4",
     .min = 0,
     .max = INFINITY,
     CLI_AT(sample_values, lr),
     .help = "Learning rate's peak"},
    {.name = "name", .kind = CLI_STRING, CLI_AT(sample_values, name), .help = "It's a [name]: x"},
    {.name = "model",
     .short_name = 'm',
     .kind = CLI_PATH,
     CLI_AT(sample_values, model),
     .help = "A configuration"},
    {.name = "precision",
     .kind = CLI_CHOICE,
     .choices = "auto|bf16|fp32",
     .fallback = "auto",
     CLI_AT(sample_values, precision),
     .help = "Of matrix products"},
    {.name = "fast",
     .short_name = 'f',
     CLI_AT(sample_values, fast),
     .help = "Hurry, with a text that is long enough to be folded at the edge of the terminal"},
    {.name = "secret", CLI_AT(sample_values, fast), .hidden = true, .help = "Hidden"},
};

static tess_status sample_run(cli_command *cmd)
{
    (void)cmd;
    return TESS_OK;
}

#define SAMPLE_VERB                                                                                \
    .options = sample_options, .n_options = TESS_COUNT(sample_options),                            \
    .values_bytes = sizeof(sample_values), .run = sample_run

static const cli_verb sample_train = {.name = "train",
                                      .summary = "Train a model",
                                      .about = "First paragraph.\n\n.Second with a leading dot.",
                                      .examples = "Small:\n$ tessera train --lr 1e-3",
                                      SAMPLE_VERB};
static const cli_verb sample_search = {.name = "search",
                                       .summary = "Find",
                                       .positional = "DIR [TEXT]",
                                       .min_args = 1,
                                       .max_args = 2,
                                       .args_are_files = true,
                                       SAMPLE_VERB};
static const cli_verb sample_build = {
    .name = "index build", .summary = "Build an index", .max_args = -1, SAMPLE_VERB};
static const cli_verb sample_info = {.name = "index info", .summary = "Describe", SAMPLE_VERB};

static const cli_verb *const sample_items[] = {&sample_train, &sample_search, &sample_build,
                                               &sample_info};
static const cli_verbs sample_verbs = {sample_items, 4};

#endif
