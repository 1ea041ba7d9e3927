/* SPDX-License-Identifier: Apache-2.0 */
/* tessera plan: what a training needs and how fast it would be, before it is begun; and --measure,
 * which learns what this machine does. */
#include "cli/model_preset.h"
#include "cli/plan_print.h"
#include "cli/ranks.h"
#include "cli/verbs.h"

#include <string.h>

typedef struct plan_values {
    const char *model, *cluster, *precision, *grad_dtype, *zero, *recompute, *output;
    int64_t batch_size, captions_per_image, accum_freq, ranks, ranks_per_host;
    double tokens, memory_gb, overlap, seconds;
    bool offload, measure;
} plan_values;

#define AT(field) CLI_AT(plan_values, field)
#define MODEL     .group = "Training"
#define CLUSTER   .group = "Cluster"

static const cli_option plan_options[] = {
    {.name = "model",
     .short_name = 'm',
     .kind = CLI_PATH,
     AT(model),
     MODEL,
     .value = "NAME|CONFIG|DIR",
     .help = "A preset (ViT-B-32, ViT-B-16, ViT-L-14, ViT-H-14, bletchley-B-16, bletchley-2.5B), a "
             "config in OpenCLIP's format, or a model directory"},
    {.name = "batch-size",
     .kind = CLI_INT,
     .fallback = "64",
     .min = 1,
     .max = 1 << 20,
     AT(batch_size),
     MODEL,
     .value = "B",
     .help = "Pictures of a batch on each rank"},
    {.name = "accum-freq",
     .kind = CLI_INT,
     .fallback = "1",
     .min = 1,
     .max = 1 << 16,
     AT(accum_freq),
     MODEL,
     .value = "N",
     .help = "Batches of an update"},
    {.name = "captions-per-image",
     .kind = CLI_INT,
     .fallback = "0",
     .min = 0,
     .max = 4096,
     AT(captions_per_image),
     MODEL,
     .value = "K",
     .help = "Captions of each picture; 0: 2 where texts are contrasted with texts, else 1"},
    {.name = "tokens",
     .kind = CLI_REAL,
     .fallback = "0",
     .min = 0,
     .max = 1 << 20,
     AT(tokens),
     MODEL,
     .value = "N",
     .help = "Tokens of a caption, on average; 0: as many as the model takes"},
    {.name = "precision",
     .kind = CLI_CHOICE,
     .choices = "auto|fp32|bf16",
     .fallback = "auto",
     AT(precision),
     MODEL,
     .help = "auto: bf16 on cards, and where this processor has it"},
    {.name = "grad-dtype",
     .kind = CLI_CHOICE,
     .choices = "f32|bf16",
     .fallback = "f32",
     AT(grad_dtype),
     MODEL,
     .help = "Of summed gradients"},
    {.name = "zero",
     .kind = CLI_CHOICE,
     .choices = "auto|0|1|2|3",
     .fallback = "auto",
     AT(zero),
     MODEL,
     .help = "What ranks divide among them: 1 moments and masters, 2 gradients too, 3 weights too; "
             "auto: all four are planned"},
    {.name = "recompute",
     .kind = CLI_CHOICE,
     .choices = "auto|off|selective|full",
     .fallback = "auto",
     AT(recompute),
     MODEL,
     .help = "What is computed again in the backward pass: selective, LayerNorms and activations "
             "(train --recompute-activations); full, blocks (--grad-checkpointing); auto: all "
             "three are planned"},
    {.name = "offload", AT(offload), MODEL, .help = "Masters and moments in files"},
    {.name = "cluster",
     .kind = CLI_PATH,
     AT(cluster),
     CLUSTER,
     .value = "KINDxN|FILE",
     .help = "N cards of a kind (v100, a100, a100-40, h100, h200, b200), eight to a host: h200x8; "
             "or a JSON file, as --measure writes one"},
    {.name = "ranks",
     .kind = CLI_INT,
     .fallback = "0",
     .min = 0,
     .max = 65536,
     AT(ranks),
     CLUSTER,
     .value = "R",
     .help = "In place of the cluster's"},
    {.name = "ranks-per-host",
     .kind = CLI_INT,
     .fallback = "0",
     .min = 0,
     .max = 65536,
     AT(ranks_per_host),
     CLUSTER,
     .value = "R",
     .help = "Likewise"},
    {.name = "memory-gb",
     .kind = CLI_REAL,
     .fallback = "0",
     .min = 0,
     .max = 1e9,
     AT(memory_gb),
     CLUSTER,
     .value = "GB",
     .help = "Memory of a rank, in place of the cluster's"},
    {.name = "overlap",
     .kind = CLI_REAL,
     .fallback = "0",
     .min = 0,
     .max = 1,
     AT(overlap),
     CLUSTER,
     .value = "PART",
     .help = "Part of the computing behind which the wire hides, in place of the cluster's"},
    {.name = "measure",
     AT(measure),
     CLUSTER,
     .help = "Learn what this machine does, by short steps of a training of the model's first "
             "blocks, and write it to --output; under mpirun of all its ranks"},
    {.name = "output",
     .short_name = 'o',
     .kind = CLI_PATH,
     AT(output),
     CLUSTER,
     .value = "FILE",
     .help = "The cluster file that --measure writes"},
    {.name = "seconds",
     .kind = CLI_REAL,
     .fallback = "2",
     .min = 0.01,
     .max = 3600,
     AT(seconds),
     CLUSTER,
     .value = "S",
     .help = "How long --measure repeats its steps"},
};

static tess_status find_model(cli_command *cmd, const plan_values *v, bool cuda,
                              tess_model_outline *out)
{
    *out = (tess_model_outline){.path = v->model, .text = cli_model_preset(v->model)};
    out->precision = strcmp(v->precision, "fp32") == 0           ? TESS_PRECISION_F32
                     : strcmp(v->precision, "bf16") == 0 || cuda ? TESS_PRECISION_BF16
                                                                 : TESS_PRECISION_AUTO;
    if (!out->text && !tess_path_exists(v->model)) {
        return cli_usage_error(cmd,
                               "there is no model %s: expected one of %s, a config, or a model "
                               "directory",
                               v->model, cli_model_presets());
    }
    return TESS_OK;
}

/* ---- measuring ------------------------------------------------------------------------------ */

static tess_status write_cluster(const tess_cluster *c, const char *path)
{
    tess_buf text = {0};
    tess_cluster_write(c, &text);
    tess_status st = tess_buf_check(&text);
    st = st ? st : tess_file_write(path, text.data, text.n_bytes);
    tess_buf_clear(&text);
    tess_buf_addf(&text, "%s: %lld rates; products %.3g GFLOP/s (f32), memory %.3g GB/s", path,
                  (long long)c->n_rates, c->flops[0] * 1e-9, c->bandwidth * 1e-9);
    if (c->ranks > 1) {
        tess_buf_addf(&text, ", link %.3g GB/s, %.3g us", c->link * 1e-9, c->link_s * 1e6);
    }
    tess_buf_addf(&text, ", disk %.3g GB/s to, %.3g GB/s from it\n", c->disk_write * 1e-9,
                  c->disk_read * 1e-9);
    st = st ? st : cli_print(&text);
    tess_buf_deinit(&text);
    return st;
}

static char *folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return !slash          ? tess_strdup(".")
           : slash == path ? tess_strdup("/")
                           : tess_strndup(path, (size_t)(slash - path));
}

static tess_status measure_as_rank(const plan_values *v, const tess_model_outline *model,
                                   tess_comm *comm)
{
    const int n = tess_comm_size(comm);
    tess_cluster c = {0};
    char *dir = folder_of(v->output);
    const int64_t threads = cli_share_threads(comm);
    const tess_measure_options o = {.model = *model,
                                    .batch = v->batch_size,
                                    .captions_per_image = v->captions_per_image,
                                    .tokens = v->tokens,
                                    .seconds = v->seconds,
                                    .dir = dir,
                                    .comm = n > 1 ? comm : NULL};
    tess_status st = dir ? tess_cluster_measure(&o, &c) : TESS_NOMEM;
    c.threads = threads;
    st = st || tess_comm_rank(comm) > 0 ? st : write_cluster(&c, v->output);
    if (st && n > 1) {
        tess_log(TESS_LOG_ERROR, "rank %d: %s", tess_comm_rank(comm), tess_error());
        tess_comm_abort(comm, 1);
    }
    tess_cluster_deinit(&c);
    tess_free(dir);
    return st;
}

static tess_status measure(cli_command *cmd, const plan_values *v)
{
    tess_model_outline model;
    tess_comm *comm = NULL;
    if (!v->output || v->cluster) {
        return cli_usage_error(cmd, "--measure needs --output FILE, and no --cluster");
    }
    TESS_TRY(find_model(cmd, v, false, &model));
    TESS_TRY(tess_comm_open(NULL, &comm));
    const tess_status st = measure_as_rank(v, &model, comm);
    tess_comm_close(comm);
    return st;
}

/* ---- planning ------------------------------------------------------------------------------- */

static void override(const plan_values *v, tess_cluster *c)
{
    c->ranks = v->ranks > 0 ? v->ranks : c->ranks;
    c->ranks_per_host = v->ranks_per_host > 0 ? v->ranks_per_host : c->ranks_per_host;
    c->ranks_per_host = c->ranks_per_host < c->ranks ? c->ranks_per_host : c->ranks;
    c->memory = v->memory_gb > 0 ? v->memory_gb * 1e9 : c->memory;
}

static int recompute_of(const char *name)
{
    for (int i = 0; i < TESS_RECOMPUTES; i++) {
        if (strcmp(name, tess_recompute_name((tess_recompute)i)) == 0) {
            return i;
        }
    }
    return -1;
}

static tess_planning_options options_of(const plan_values *v, const tess_model_outline *model,
                                        const tess_cluster *c)
{
    return (tess_planning_options){
        .model = *model,
        .cluster = c,
        .batch = v->batch_size,
        .captions_per_image = v->captions_per_image,
        .tokens = v->tokens,
        .accumulate = v->accum_freq,
        .bf16_gradients = strcmp(v->grad_dtype, "bf16") == 0,
        .stage = strcmp(v->zero, "auto") == 0 ? -1 : v->zero[0] - '0',
        .recompute = recompute_of(v->recompute),
        .offload = v->offload,
    };
}

static tess_status refuse(const tess_planning_options *o, const tess_planning *p)
{
    tess_planning_advice a;
    tess_buf text = {0};
    TESS_TRY(tess_planning_advise(o, p, &a));
    cli_plan_advise(o, &a, &text);
    tess_status st = tess_buf_check(&text);
    st = st ? st : TESS_FAIL(TESS_NOMEM, "%s", text.data);
    tess_buf_deinit(&text);
    return st;
}

/* The table is printed also where nothing fits. */
static tess_status plan_on(cli_command *cmd, const plan_values *v, const tess_cluster *c)
{
    tess_model_outline model;
    tess_planning p;
    TESS_TRY(find_model(cmd, v, c->cuda, &model));
    const tess_planning_options o = options_of(v, &model, c);
    TESS_TRY(tess_plan_training(&o, &p));
    tess_buf out = {0};
    (cmd->common.json ? cli_plan_write : cli_plan_print)(&o, &p, &out);
    const tess_status st = cli_print(&out);
    tess_buf_deinit(&out);
    return st || p.best >= 0 ? st : refuse(&o, &p);
}

static tess_status run_plan(cli_command *cmd)
{
    const plan_values *v = cmd->values;
    if (!v->model) {
        return cli_usage_error(cmd, "plan needs --model");
    }
    if (v->measure) {
        return measure(cmd, v);
    }
    if (!v->cluster || v->output) {
        return cli_usage_error(cmd, "plan needs --cluster, or --measure with --output FILE");
    }
    tess_cluster c;
    TESS_TRY(tess_cluster_open(v->cluster, &c));
    override(v, &c);
    c.overlap = cli_given(cmd, "overlap") ? v->overlap : c.overlap;
    const tess_status st = plan_on(cmd, v, &c);
    tess_cluster_deinit(&c);
    return st;
}

const cli_verb cli_verb_plan = {
    .name = "plan",
    .summary = "Say what a training will need and how fast it will be",
    .options = plan_options,
    .n_options = TESS_COUNT(plan_options),
    .values_bytes = sizeof(plan_values),
    .computes = true,
    .about =
        "Plans the training without weights, data or hardware, for every ZeRO stage and every kind "
        "of recompute: bytes of a rank by kind, bytes on the wire, seconds of a step and "
        "what bounds them. Marks the fastest that fits; where nothing does it says what "
        "would, and fails. Seconds on kinds of cards are from data sheets; --measure makes "
        "them this machine's.",
    .examples =
        "A large model on 64 cards:\n"
        "$ tessera plan --model bletchley-2.5B --cluster h200x64 --batch-size 256\n"
        "This machine, two ranks:\n"
        "$ mpirun -n 2 tessera plan --model ViT-B-32 --batch-size 32 --measure -o here.json\n"
        "$ tessera plan --model ViT-B-32 --batch-size 32 --cluster here.json",
    .run = run_plan,
};
