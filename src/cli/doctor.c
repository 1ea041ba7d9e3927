/* SPDX-License-Identifier: Apache-2.0 */
/* tessera doctor: what this machine has, and what Tessera will use of it.
 *
 * The findings are written once, as a JSON document; the text form is that document printed as an
 * outline, so the two cannot disagree.
 */
#include "cli/doctor.h"
#include "cli/term.h"
#include "cli/verbs.h"

#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

typedef struct doctor_values {
    char none;
} doctor_values;

static void add_string(tess_json_writer *w, const char *key, const char *value)
{
    tess_json_key(w, key);
    tess_json_add_string(w, value);
}

static void add_int(tess_json_writer *w, const char *key, int64_t value)
{
    tess_json_key(w, key);
    tess_json_add_int(w, value);
}

static void add_system(tess_json_writer *w)
{
    struct utsname name;
    tess_json_key(w, "system");
    tess_json_begin_object(w);
    add_string(w, "tessera", TESS_VERSION);
    if (uname(&name) == 0) {
        add_string(w, "kernel", name.release);
        add_string(w, "machine", name.machine);
    }
    add_string(w, "compiler", __VERSION__);
    tess_json_end_object(w);
}

static void add_processor(tess_json_writer *w)
{
    tess_json_key(w, "processor");
    tess_json_begin_object(w);
    add_string(w, "model", tess_cpu_model());
    add_int(w, "cores_online", sysconf(_SC_NPROCESSORS_ONLN));
    add_int(w, "cores_usable", tess_cpu_count());
    tess_json_key(w, "features");
    tess_json_begin_array(w);
    cli_doctor_features(w, "/proc/cpuinfo");
    tess_json_end_array(w);
    tess_json_end_object(w);
}

static void add_memory(tess_json_writer *w)
{
    tess_json_key(w, "memory");
    tess_json_begin_object(w);
    int64_t total = cli_doctor_meminfo("/proc/meminfo", "MemTotal");
    int64_t free = cli_doctor_meminfo("/proc/meminfo", "MemAvailable");
    int64_t limit = cli_doctor_memory_limit("/proc/self/cgroup", "/sys/fs/cgroup");
    add_int(w, "total_bytes", total);
    add_int(w, "available_bytes", free);
    tess_json_key(w, "cgroup_limit_bytes");
    if (limit > 0) {
        tess_json_add_int(w, limit);
    } else {
        tess_json_add_null(w);
    }
    add_int(w, "shared_memory_free_bytes", cli_doctor_free_bytes("/dev/shm"));
    tess_json_end_object(w);
}

static void add_use(tess_json_writer *w)
{
    tess_isa isa = tess_isa_get();
    tess_json_key(w, "tessera_will_use");
    tess_json_begin_object(w);
    add_string(w, "device", "cpu");
    add_string(w, "instruction_set", tess_isa_name(isa));
    add_string(w, "training_precision", isa >= TESS_ISA_AVX512BF16 ? "bf16 with f32 sums" : "f32");
    add_int(w, "threads", tess_cpu_count());
    tess_json_end_object(w);
}

/* ---- the outline -------------------------------------------------------------------------- */

static void add_bytes(tess_buf *out, int64_t n)
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    double v = (double)n;
    int unit = 0;
    for (; v >= 1024 && unit < 4; unit++) {
        v /= 1024;
    }
    tess_buf_addf(out, unit == 0 ? "%.0f %s" : "%.1f %s", v, units[unit]);
}

static void print_value(tess_buf *out, const char *key, const tess_json *v)
{
    size_t n = strlen(key);
    bool bytes = n > 6 && strcmp(key + n - 6, "_bytes") == 0;
    switch (tess_json_kind_of(v)) {
    case TESS_JSON_STRING:
        tess_buf_adds(out, tess_json_string(v, ""));
        break;
    case TESS_JSON_INT:
        if (bytes) {
            add_bytes(out, tess_json_int(v, 0));
        } else {
            tess_buf_addf(out, "%lld", (long long)tess_json_int(v, 0));
        }
        break;
    case TESS_JSON_BOOL:
        tess_buf_adds(out, tess_json_bool(v, false) ? "yes" : "no");
        break;
    case TESS_JSON_ARRAY:
        for (size_t i = 0; i < tess_json_count(v); i++) {
            tess_buf_addf(out, "%s%s", i > 0 ? " " : "", tess_json_string(tess_json_at(v, i), "?"));
        }
        tess_buf_adds(out, tess_json_count(v) == 0 ? "none" : "");
        break;
    default:
        tess_buf_adds(out, "none");
        break;
    }
}

static void print_line(tess_buf *out, const char *key, const tess_json *v, cli_term t)
{
    enum { COLUMN = 24 };
    size_t n = strlen(key);
    bool bytes = n > 6 && strcmp(key + n - 6, "_bytes") == 0;
    tess_buf text = {0};
    size_t shown = bytes ? n - 6 : n;
    tess_buf_adds(out, "  ");
    for (size_t i = 0; i < shown; i++) {
        tess_buf_add(out, key[i] == '_' ? " " : &key[i], 1);
    }
    cli_pad(out, COLUMN - 2 - (int)shown);
    print_value(&text, key, v);
    cli_wrap(out, text.data != NULL ? text.data : "", COLUMN, COLUMN, t.width);
    tess_buf_adds(out, "\n");
    out->failed |= text.failed;
    tess_buf_deinit(&text);
}

static void print_section(tess_buf *out, const char *name, const tess_json *section, cli_term t)
{
    tess_buf_adds(out, cli_style_begin(t, CLI_STYLE_HEAD));
    for (const char *p = name; *p != '\0'; p++) {
        tess_buf_add(out, *p == '_' ? " " : p, 1);
    }
    tess_buf_addf(out, "%s\n", cli_style_begin(t, CLI_STYLE_PLAIN));
    for (size_t i = 0; i < tess_json_count(section); i++) {
        const char *key;
        const tess_json *v = tess_json_member(section, i, &key);
        print_line(out, key, v, t);
    }
}

static tess_status print_outline(const tess_buf *json, cli_term t)
{
    tess_json_doc *doc;
    tess_buf out = {0};
    TESS_TRY(tess_json_parse(json->data, json->n_bytes, "doctor", &doc));
    const tess_json *root = tess_json_root(doc);
    for (size_t i = 0; i < tess_json_count(root); i++) {
        const char *name;
        const tess_json *section = tess_json_member(root, i, &name);
        print_section(&out, name, section, t);
    }
    tess_status st = cli_print(&out);
    tess_buf_deinit(&out);
    tess_json_free(doc);
    return st;
}

static tess_status run_doctor(cli_command *cmd)
{
    tess_buf json = {0};
    tess_json_writer w = {.buf = &json, .pretty = true};
    tess_json_begin_object(&w);
    add_system(&w);
    add_processor(&w);
    add_memory(&w);
    cli_doctor_libraries(&w);
    cli_doctor_gpu(&w);
    add_use(&w);
    tess_json_end_object(&w);
    tess_buf_adds(&json, "\n");
    tess_status st = tess_buf_check(&json);
    if (st == TESS_OK) {
        st = cmd->common.json ? cli_print(&json)
                              : print_outline(&json, cli_term_of(stdout, cmd->common.color));
    }
    tess_buf_deinit(&json);
    return st;
}

const cli_verb cli_verb_doctor = {
    .name = "doctor",
    .summary = "Say what this machine has and what Tessera will use",
    .values_bytes = sizeof(doctor_values),
    .examples = "Read it:\n$ tessera doctor\nFor a report of a fault:\n"
                "$ tessera doctor --json > doctor.json",
    .run = run_doctor,
};
