/* SPDX-License-Identifier: Apache-2.0 */
/* tessera pack: a model's weights in the form that inference reads, beside the model. */
#include "cli/precision.h"
#include "cli/common_rows.h"
#include "cli/verbs.h"

typedef struct pack_values {
    const char *model, *precision;
    bool check;
} pack_values;

static const cli_option pack_options[] = {
    CLI_MODEL(pack_values),
    {.name = "precision",
     .kind = CLI_CHOICE,
     .choices = "auto|f32|bf16|int8",
     .fallback = "auto",
     CLI_AT(pack_values, precision),
     .help = "The fewest bits to try; auto: 8"},
    {.name = "check",
     CLI_AT(pack_values, check),
     .help = "Read the packed file that is there against its hash and the weights"},
};

static void write_json(const tess_pack_report *r, tess_buf *out)
{
    tess_json_writer w = {.buf = out};
    tess_json_begin_object(&w);
    tess_json_key(&w, "mode");
    tess_json_add_string(&w, r->candidates[r->n_candidates - 1].mode);
    tess_json_key(&w, "tried");
    tess_json_begin_array(&w);
    for (int i = 0; i < r->n_candidates; i++) {
        const tess_pack_candidate *c = &r->candidates[i];
        tess_json_begin_object(&w);
        tess_json_key(&w, "mode");
        tess_json_add_string(&w, c->mode);
        if (r->n_pictures > 0) {
            tess_json_key(&w, "image_cosine");
            tess_json_add_real(&w, c->image_cosine);
        }
        tess_json_key(&w, "text_cosine");
        tess_json_add_real(&w, c->text_cosine);
        tess_json_key(&w, "least_cosine");
        tess_json_add_real(&w, c->least_cosine);
        tess_json_end_object(&w);
    }
    tess_json_end_array(&w);
    tess_json_end_object(&w);
    tess_buf_adds(out, "\n");
}

static void write_text(const tess_pack_report *r, const char *dir, tess_buf *out)
{
    tess_buf_adds(out, "least cosine to f32, ");
    if (r->n_pictures > 0) {
        tess_buf_addf(out, "%lld pictures, ", (long long)r->n_pictures);
    }
    tess_buf_addf(out, "%lld texts\n", (long long)r->n_texts);
    for (int i = 0; i < r->n_candidates; i++) {
        const tess_pack_candidate *c = &r->candidates[i];
        tess_buf_addf(out, "  %-44s", c->mode);
        if (r->n_pictures > 0) {
            tess_buf_addf(out, " %8.5f", c->image_cosine);
        }
        tess_buf_addf(out, " %8.5f   %s\n", c->text_cosine,
                      i + 1 == r->n_candidates ? "taken" : "too far");
    }
    tess_buf_addf(out, "%s: packed as %s\n", dir, r->candidates[r->n_candidates - 1].mode);
}

static tess_status run_pack(cli_command *cmd)
{
    const pack_values *v = cmd->values;
    if (!v->model) {
        return cli_usage_error(cmd, "pack needs --model");
    }
    tess_compute_threads(0);
    tess_buf out = {0};
    tess_status st;
    if (v->check) {
        st = tess_model_check_pack(v->model);
        tess_buf_addf(&out, "%s: the packed weights are whole and this model's\n", v->model);
    } else {
        tess_pack_report r;
        st = tess_model_pack(v->model, cli_precision_of(v->precision), &r);
        if (st == TESS_OK && cmd->common.json) {
            write_json(&r, &out);
        } else if (st == TESS_OK) {
            write_text(&r, v->model, &out);
        }
    }
    st = st ? st : cli_print(&out);
    tess_buf_deinit(&out);
    return st;
}

const cli_verb cli_verb_pack = {
    .name = "pack",
    .summary = "Pack a model's weights for fast, shared inference",
    .options = pack_options,
    .n_options = TESS_COUNT(pack_options),
    .values_bytes = sizeof(pack_values),
    .computes = true,
    .about = "Measures the model in 8 bits, then in bf16, against f32, takes the first that keeps "
             "the cosine (0.99; bf16 0.999), and writes tessera_packed.bin into the model's "
             "directory. Verbs that embed then map it: they open in milliseconds and share its "
             "memory. A packed file of other weights is never used.",
    .examples = "$ tessera pack --model logs/first/model\n"
                "$ tessera pack --model logs/first/model --check",
    .run = run_pack,
};
