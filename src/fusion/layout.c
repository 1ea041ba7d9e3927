/* SPDX-License-Identifier: Apache-2.0 */
/* Finding rules and names.  Patterns have one wildcard, so matching is a comparison of both ends
 * and substitution a concatenation; a model has some hundreds of parameters and a table some forty
 * rules, and the whole of it takes well under a millisecond. */
#include "fusion/layout.h"

#include <string.h>

void tess__layout_add(tess_layout *l, const tess_layout_rule *rules, int64_t n_rules,
                      const char *our_prefix, const char *their_prefix)
{
    if (l->n_tables < TESS_LAYOUT_TABLES) {
        l->tables[l->n_tables++] = (tess_layout_table){rules, n_rules, our_prefix ? our_prefix : "",
                                                       their_prefix ? their_prefix : ""};
    }
}

/* What a wildcard stands for. */
typedef struct capture {
    const char *text;
    size_t n_bytes;
} capture;

static bool fills(char wildcard, const capture *c)
{
    size_t n_digits = 0;
    while (n_digits < c->n_bytes && c->text[n_digits] >= '0' && c->text[n_digits] <= '9') {
        n_digits++;
    }
    return c->n_bytes > 0 && (wildcard == '*' || n_digits == c->n_bytes);
}

static bool match(const char *pattern, const char *name, capture *out)
{
    size_t n_before = strcspn(pattern, "#*"), n_name = strlen(name);
    *out = (capture){name, 0};
    if (!pattern[n_before]) {
        return strcmp(pattern, name) == 0;
    }
    const char *after = pattern + n_before + 1;
    size_t n_after = strlen(after);
    if (n_name < n_before + n_after || strncmp(pattern, name, n_before) != 0 ||
        strcmp(after, name + n_name - n_after) != 0) {
        return false;
    }
    *out = (capture){name + n_before, n_name - n_before - n_after};
    return fills(pattern[n_before], out);
}

/* The name without the prefix; NULL when it has another. */
static const char *strip(const char *name, const char *prefix)
{
    size_t n = strlen(prefix);
    return strncmp(name, prefix, n) == 0 ? name + n : NULL;
}

static int64_t count_parts(const tess_layout_table *t, int64_t i)
{
    int64_t n = 1;
    while (i + n < t->n_rules && t->rules[i + n].ours &&
           strcmp(t->rules[i + n].ours, t->rules[i].ours) == 0) {
        n++;
    }
    return n;
}

static tess_layout_place find_in(const tess_layout_table *t, const char *ours)
{
    const char *name = strip(ours, t->our_prefix);
    capture c;
    for (int64_t i = 0; name && i < t->n_rules; i++) {
        if (t->rules[i].ours && match(t->rules[i].ours, name, &c)) {
            return (tess_layout_place){t, &t->rules[i], count_parts(t, i)};
        }
    }
    return (tess_layout_place){0};
}

tess_layout_place tess__layout_find(const tess_layout *l, const char *ours)
{
    tess_layout_place place = {0};
    for (int64_t i = 0; place.n_rules == 0 && i < l->n_tables; i++) {
        place = find_in(&l->tables[i], ours);
    }
    return place;
}

tess_status tess__layout_name(const tess_layout_place *place, int64_t i, const char *ours,
                              tess_buf *out)
{
    const tess_layout_rule *rule = &place->rules[i];
    const char *pattern = rule->theirs;
    size_t n_before = strcspn(pattern, "#*");
    capture c = {0};
    match(rule->ours, strip(ours, place->table->our_prefix), &c);
    tess_buf_clear(out);
    tess_buf_addf(out, "%s%.*s", place->table->their_prefix, (int)n_before, pattern);
    if (pattern[n_before]) {
        tess_buf_add(out, c.text, c.n_bytes);
        tess_buf_adds(out, pattern + n_before + 1);
    }
    return tess_buf_check(out);
}

bool tess__layout_ignores(const tess_layout *l, const char *theirs)
{
    capture c;
    for (int64_t i = 0; i < l->n_tables; i++) {
        const tess_layout_table *t = &l->tables[i];
        const char *name = strip(theirs, t->their_prefix);
        for (int64_t k = 0; name && k < t->n_rules; k++) {
            if (t->rules[k].kind == TESS_LAYOUT_IGNORED && match(t->rules[k].theirs, name, &c)) {
                return true;
            }
        }
    }
    return false;
}

static bool add_leading(tess_shape *s, int n)
{
    if (s->rank + n > TESS_MAX_RANK) {
        return false;
    }
    memmove(s->dim + n, s->dim, (size_t)s->rank * sizeof s->dim[0]);
    for (int i = 0; i < n; i++) {
        s->dim[i] = 1;
    }
    s->rank += n;
    return true;
}

bool tess__layout_shape(const tess_layout_rule *rule, const tess_shape *ours, tess_shape *out)
{
    *out = *ours;
    switch (rule->kind) {
    case TESS_LAYOUT_TRANSPOSE:
        out->dim[0] = ours->dim[1];
        out->dim[1] = ours->dim[0];
        return ours->rank == 2;
    case TESS_LAYOUT_LEADING:
        return add_leading(out, rule->n);
    case TESS_LAYOUT_ROWS:
        out->dim[0] = rule->n > 0 ? ours->dim[0] / rule->n : 0;
        return ours->rank > 0 && rule->n > 0 && ours->dim[0] % rule->n == 0;
    case TESS_LAYOUT_STACKED:
        out->dim[0] = rule->span > 0 ? ours->dim[0] / rule->span * rule->n : 0;
        return ours->rank > 0 && rule->span > 0 && ours->dim[0] % rule->span == 0;
    case TESS_LAYOUT_SAME:
        return true;
    default:
        return false;
    }
}

void tess__layout_types_deinit(tess_layout_types *types)
{
    tess_free(types->types);
    *types = (tess_layout_types){0};
}
