/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a SentencePiece .model: a serialised ModelProto (field numbers from the project's public
 * sentencepiece_model.proto).
 *
 * Departures from SentencePiece: both specs must be present (every trainer writes them behind the
 * pieces, so a file cut short is noticed instead of being read with defaults); a piece may not
 * occur twice in any form, hold a NUL, or have 8000 bytes or more. */
#include "text/spm.h"
#include "text/proto.h"

#include <ctype.h>
#include <math.h>
#include <string.h>

enum { MAX_PIECE_BYTES = 8000, MAX_PIECES = 1 << 24 };

typedef struct slot { /* a scalar of a message and where it goes */
    uint32_t number;
    enum { SLOT_BOOL, SLOT_U64, SLOT_BYTES } kind;
    size_t offset;
} slot;

#define AT(field) offsetof(tess__spm_model, field)
static const slot trainer_slots[] = {
    {3, SLOT_U64, AT(model_type)},      {24, SLOT_BOOL, AT(suffix_space)},
    {35, SLOT_BOOL, AT(byte_fallback)}, {44, SLOT_BYTES, AT(unk_surface)},
    {46, SLOT_BYTES, AT(bos_piece)},    {47, SLOT_BYTES, AT(eos_piece)},
    {48, SLOT_BYTES, AT(pad_piece)},
};
static const slot normalizer_slots[] = {
    {2, SLOT_BYTES, AT(charsmap)},
    {3, SLOT_BOOL, AT(add_dummy_prefix)},
    {4, SLOT_BOOL, AT(remove_extra_spaces)},
    {5, SLOT_BOOL, AT(escape_spaces)},
};
static const slot denormalizer_slots[] = {{2, SLOT_BYTES, AT(denormalizer)}};

static tess_status read_slot(tess__spm_model *m, const slot *s, const tess__proto_field *f,
                             const char *what)
{
    char *to = (char *)m + s->offset;
    TESS_TRY(
        tess__proto_expect(f, s->kind == SLOT_BYTES ? TESS__WIRE_BYTES : TESS__WIRE_VARINT, what));
    if (s->kind == SLOT_BYTES) {
        *(tess_bytes *)to = f->bytes;
    } else if (s->kind == SLOT_BOOL) {
        *(bool *)to = f->value != 0;
    } else {
        *(uint64_t *)to = f->value;
    }
    return TESS_OK;
}

static tess_status read_slots(tess__spm_model *m, const tess__proto_field *message,
                              const slot *slots, int64_t n_slots, const char *what)
{
    tess__proto p = tess__proto_inside(message);
    tess__proto_field f;
    for (bool more;;) {
        TESS_TRY(tess__proto_next(&p, &f, &more));
        if (!more) {
            return TESS_OK;
        }
        for (int64_t i = 0; i < n_slots; i++) {
            if (slots[i].number == f.number) {
                TESS_TRY(read_slot(m, &slots[i], &f, what));
            }
        }
    }
}

static tess_status read_piece_field(tess__piece *piece, const tess__proto_field *f)
{
    switch (f->number) {
    case 1:
        TESS_TRY(tess__proto_expect(f, TESS__WIRE_BYTES, "a piece's text"));
        if (f->bytes.n_bytes >= MAX_PIECE_BYTES) {
            return TESS_FAIL(TESS_FORMAT, "a piece at byte %zu has %zu bytes, the limit is %d",
                             f->at, f->bytes.n_bytes, MAX_PIECE_BYTES - 1);
        }
        piece->text = (const char *)f->bytes.data;
        piece->n_bytes = (uint32_t)f->bytes.n_bytes;
        return TESS_OK;
    case 2:
        TESS_TRY(tess__proto_expect(f, TESS__WIRE_FIXED32, "a piece's score"));
        piece->score = tess__proto_float(f);
        return isfinite(piece->score)
                   ? TESS_OK
                   : TESS_FAIL(TESS_FORMAT, "a piece at byte %zu has a score that is not finite",
                               f->at);
    case 3:
        TESS_TRY(tess__proto_expect(f, TESS__WIRE_VARINT, "a piece's type"));
        if (f->value < TESS__PIECE_NORMAL || f->value > TESS__PIECE_BYTE) {
            return TESS_FAIL(TESS_FORMAT, "a piece at byte %zu has the unknown type %llu", f->at,
                             (unsigned long long)f->value);
        }
        piece->type = (uint8_t)f->value;
        return TESS_OK;
    default:
        return TESS_OK;
    }
}

static tess_status read_piece(tess__spm_model *m, const tess__proto_field *message)
{
    if (m->n_pieces == MAX_PIECES) {
        return TESS_FAIL(TESS_FORMAT, "more than %d pieces", MAX_PIECES);
    }
    TESS_TRY(tess_grow(&m->pieces, &m->cap_pieces, m->n_pieces + 1, sizeof(*m->pieces)));
    tess__piece *piece = &m->pieces[m->n_pieces++];
    *piece = (tess__piece){.type = TESS__PIECE_NORMAL};
    tess__proto p = tess__proto_inside(message);
    tess__proto_field f;
    for (bool more;;) {
        TESS_TRY(tess__proto_next(&p, &f, &more));
        if (!more) {
            return TESS_OK;
        }
        TESS_TRY(read_piece_field(piece, &f));
    }
}

static tess_status read_field(tess__spm_model *m, const tess__proto_field *f)
{
    if (f->number >= 1 && f->number <= 5) {
        TESS_TRY(tess__proto_expect(f, TESS__WIRE_BYTES, "a part of the model"));
    }
    switch (f->number) {
    case 1:
        return read_piece(m, f);
    case 2:
        m->has_trainer = true;
        return read_slots(m, f, trainer_slots, TESS_COUNT(trainer_slots), "trainer_spec");
    case 3:
        m->has_normalizer = true;
        return read_slots(m, f, normalizer_slots, TESS_COUNT(normalizer_slots), "normalizer_spec");
    case 5:
        return read_slots(m, f, denormalizer_slots, TESS_COUNT(denormalizer_slots),
                          "denormalizer_spec");
    default:
        return TESS_OK;
    }
}

static tess_status read_all(tess__spm_model *m, const uint8_t *bytes, size_t n_bytes)
{
    tess__proto p = {.data = bytes, .n_bytes = n_bytes};
    tess__proto_field f;
    for (bool more;;) {
        TESS_TRY(tess__proto_next(&p, &f, &more));
        if (!more) {
            return TESS_OK;
        }
        TESS_TRY(read_field(m, &f));
    }
}

/* "<0x4F>" -> 0x4F; -1 for anything else.  Upper-case digits only, as SentencePiece writes them. */
static int byte_of(const tess__piece *p)
{
    static const char digits[] = "0123456789ABCDEF";
    if (p->n_bytes != 6 || memcmp(p->text, "<0x", 3) != 0 || p->text[5] != '>') {
        return -1;
    }
    const char *hi = memchr(digits, p->text[3], 16), *lo = memchr(digits, p->text[4], 16);
    return hi != NULL && lo != NULL ? (int)((hi - digits) * 16 + (lo - digits)) : -1;
}

static tess_status check_piece(tess__spm_model *m, int32_t id)
{
    tess__piece *p = &m->pieces[id];
    if (p->n_bytes == 0 || memchr(p->text, 0, p->n_bytes) != NULL) {
        return TESS_FAIL(TESS_FORMAT, "piece %d is empty or holds a NUL", (int)id);
    }
    m->n_unused += p->type == TESS__PIECE_UNUSED;
    if (p->type == TESS__PIECE_UNKNOWN) {
        if (m->unk_id >= 0) {
            return TESS_FAIL(TESS_FORMAT, "pieces %d and %d are both the unknown piece",
                             (int)m->unk_id, (int)id);
        }
        m->unk_id = id;
    }
    if (p->type == TESS__PIECE_BYTE) {
        int byte = byte_of(p);
        if (byte < 0 || !m->byte_fallback) {
            return TESS_FAIL(TESS_FORMAT,
                             "piece %d is of type BYTE: expected \"<0xNN>\" in a model "
                             "with byte fallback, found \"%.*s\"%s",
                             (int)id, (int)(p->n_bytes < 20 ? p->n_bytes : 20), p->text,
                             m->byte_fallback ? "" : " without it");
        }
        p->byte = (uint8_t)byte;
        m->byte_ids[byte] = id;
    }
    return TESS_OK;
}

static tess_status check(tess__spm_model *m)
{
    if (m->n_pieces == 0 || !m->has_trainer || !m->has_normalizer) {
        return TESS_FAIL(TESS_FORMAT,
                         "expected pieces, trainer_spec and normalizer_spec; found %zu "
                         "pieces, %s trainer_spec, %s normalizer_spec (cut short?)",
                         m->n_pieces, m->has_trainer ? "a" : "no", m->has_normalizer ? "a" : "no");
    }
    if (m->denormalizer.n_bytes > 0) {
        return TESS_FAIL(TESS_UNSUPPORTED, "the model has denormalisation rules, which are not "
                                           "offered: train it without --denormalization_rule_tsv");
    }
    for (size_t i = 0; i < m->n_pieces; i++) {
        TESS_TRY(check_piece(m, (int32_t)i));
    }
    if (m->unk_id < 0) {
        return TESS_FAIL(TESS_FORMAT, "no piece is the unknown piece");
    }
    for (int i = 0; m->byte_fallback && i < 256; i++) {
        if (m->byte_ids[i] < 0) {
            return TESS_FAIL(TESS_FORMAT, "byte fallback is on, but there is no piece <0x%02X>", i);
        }
    }
    return TESS_OK;
}

typedef struct signature {
    const char *head;
    size_t n_bytes;
    const char *what;
} signature;
#define SIGNATURE(head, what)                                                                      \
    {                                                                                              \
        (head), sizeof(head) - 1, (what)                                                           \
    }
static const signature signatures[] = {
    SIGNATURE("\x89PNG", "a PNG picture"),
    SIGNATURE("\xff\xd8\xff", "a JPEG picture"),
    SIGNATURE("RIFF", "a RIFF file (WebP, WAV)"),
    SIGNATURE("GIF8", "a GIF picture"),
    SIGNATURE("\x1f\x8b", "gzip data: unpack it first"),
    SIGNATURE("PK\x03\x04", "a zip archive"),
    SIGNATURE("version https://git-lfs", "a Git LFS pointer: fetch the real file"),
    SIGNATURE("<!DOCTYPE", "an HTML page"),
    SIGNATURE("<html", "an HTML page"),
    SIGNATURE("{", "JSON (a tokenizer.json?)"),
    SIGNATURE("[", "JSON"),
    SIGNATURE("\x7f"
              "ELF",
              "a program"),
};

/* What the bytes look like when they are evidently no model, or NULL. */
static const char *other_format(const uint8_t *b, size_t n)
{
    size_t i = 0;
    while (i < n && i < 64 && isspace(b[i])) {
        i++;
    }
    for (const signature *s = signatures; s < signatures + TESS_COUNT(signatures); s++) {
        size_t at = s->head[0] == '{' || s->head[0] == '[' || s->head[0] == '<' ? i : 0;
        if (n - at >= s->n_bytes && memcmp(b + at, s->head, s->n_bytes) == 0) {
            return s->what;
        }
    }
    return n == 0 ? "an empty file" : NULL;
}

tess_status tess__spm_model_read(tess__spm_model *m, const uint8_t *bytes, size_t n_bytes)
{
    *m = (tess__spm_model){.model_type = 1,
                           .add_dummy_prefix = true,
                           .remove_extra_spaces = true,
                           .escape_spaces = true,
                           .unk_id = -1};
    memset(m->byte_ids, 0xff, sizeof(m->byte_ids));
    tess_status st = read_all(m, bytes, n_bytes);
    if (st == TESS_OK) {
        st = check(m);
    }
    if (st != TESS_FORMAT) {
        return st;
    }
    /* Asked only now: no signature can then turn a good model away. */
    const char *other = other_format(bytes, n_bytes);
    return other != NULL ? TESS_FAIL(st, "expected a SentencePiece model, found %s", other)
                         : tess_error_prefix(st, "not a usable SentencePiece model");
}

void tess__spm_model_deinit(tess__spm_model *m)
{
    tess_free(m->pieces);
    *m = (tess__spm_model){0};
}
