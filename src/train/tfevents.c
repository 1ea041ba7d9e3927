/* SPDX-License-Identifier: Apache-2.0 */
/* Event files: TFRecord frames around Event messages.
 *
 *   frame   u64 length, u32 masked CRC32C of those 8 bytes, data, u32 masked CRC32C of the data;
 *           all little-endian.  mask(c) = rotate_right(c, 15) + 0xa282ead8
 *   Event   1 wall_time double | 2 step int64 | 3 file_version string | 5 summary
 *   Summary 1 repeated Value { 1 tag string | 2 simple_value float }
 *
 * (TensorFlow's record_writer.cc, event.proto, summary.proto.)  One Event holds all scalars of a
 * step.  A resumed run goes on in the same file instead of beginning another, so that a curve is
 * one curve and readers need no rule for steps that come twice.
 */
#include "train/tfevents.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };
enum { FRAME_HEAD = 12, FRAME_TAIL = 4 };

/* ---- writing ------------------------------------------------------------------------------ */

static uint32_t mask(uint32_t crc)
{
    return ((crc >> 15) | (crc << 17)) + 0xa282ead8U;
}

static void add_le(tess_buf *out, uint64_t v, int n_bytes)
{
    uint8_t bytes[8];
    for (int i = 0; i < n_bytes; i++) {
        bytes[i] = (uint8_t)(v >> (8 * i));
    }
    tess_buf_add(out, bytes, (size_t)n_bytes);
}

static void add_varint(tess_buf *out, uint64_t v)
{
    uint8_t bytes[10];
    size_t n = 0;
    do {
        bytes[n++] = (uint8_t)((v & 127) | (v > 127 ? 128 : 0));
        v >>= 7;
    } while (v > 0);
    tess_buf_add(out, bytes, n);
}

static void add_key(tess_buf *out, int field, int wire)
{
    add_varint(out, (uint64_t)(field << 3 | wire));
}

static void add_double(tess_buf *out, int field, double v)
{
    uint64_t bits;
    memcpy(&bits, &v, sizeof(bits));
    add_key(out, field, WIRE_64);
    add_le(out, bits, 8);
}

static void add_float(tess_buf *out, int field, float v)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof(bits));
    add_key(out, field, WIRE_32);
    add_le(out, bits, 4);
}

static void add_bytes(tess_buf *out, int field, const void *data, size_t n_bytes)
{
    add_key(out, field, WIRE_BYTES);
    add_varint(out, n_bytes);
    tess_buf_add(out, data, n_bytes);
}

/* A submessage that could not be built makes its parent fail. */
static void add_message(tess_buf *out, int field, tess_buf *message)
{
    add_bytes(out, field, message->data, message->n_bytes);
    out->failed |= message->failed;
    tess_buf_deinit(message);
}

static void add_frame(tess_buf *out, tess_buf *event)
{
    uint8_t length[8];
    for (int i = 0; i < 8; i++) {
        length[i] = (uint8_t)((uint64_t)event->n_bytes >> (8 * i));
    }
    tess_buf_add(out, length, sizeof(length));
    add_le(out, mask(tess_crc32c(0, length, sizeof(length))), 4);
    tess_buf_add(out, event->data, event->n_bytes);
    add_le(out, mask(tess_crc32c(0, event->data, event->n_bytes)), 4);
    out->failed |= event->failed;
    tess_buf_deinit(event);
}

void tess__tfevents_add_version(tess_buf *out, double wall_s)
{
    static const char version[] = "brain.Event:2";
    tess_buf event = {0};
    add_double(&event, 1, wall_s);
    add_bytes(&event, 3, version, sizeof(version) - 1);
    add_frame(out, &event);
}

void tess__tfevents_add_scalars(tess_buf *out, double wall_s, int64_t step,
                                const tess_scalar *scalars, size_t n)
{
    tess_buf event = {0}, summary = {0};
    for (size_t i = 0; i < n; i++) {
        tess_buf value = {0};
        add_bytes(&value, 1, scalars[i].name, strlen(scalars[i].name));
        add_float(&value, 2, (float)scalars[i].value);
        add_message(&summary, 1, &value);
    }
    add_double(&event, 1, wall_s);
    add_key(&event, 2, WIRE_VARINT);
    add_varint(&event, (uint64_t)step);
    add_message(&event, 5, &summary);
    add_frame(out, &event);
}

/* ---- reading back ------------------------------------------------------------------------- */

static uint64_t get_le(const uint8_t *p, int n_bytes)
{
    uint64_t v = 0;
    for (int i = 0; i < n_bytes; i++) {
        v |= (uint64_t)p[i] << (8 * i);
    }
    return v;
}

static bool get_varint(const uint8_t **p, const uint8_t *end, uint64_t *out)
{
    uint64_t v = 0;
    for (int shift = 0; *p < end && shift < 64; shift += 7) {
        uint8_t byte = *(*p)++;
        v |= (uint64_t)(byte & 127) << shift;
        if (byte < 128) {
            *out = v;
            return true;
        }
    }
    return false;
}

/* Steps over a field's value. */
static bool skip_value(const uint8_t **p, const uint8_t *end, int wire)
{
    uint64_t n = 0;
    switch (wire) {
    case WIRE_VARINT:
        return get_varint(p, end, &n);
    case WIRE_64:
        n = 8;
        break;
    case WIRE_32:
        n = 4;
        break;
    case WIRE_BYTES:
        if (!get_varint(p, end, &n)) {
            return false;
        }
        break;
    default:
        return false;
    }
    if (n > (uint64_t)(end - *p)) {
        return false;
    }
    *p += n;
    return true;
}

/* The step of an Event, 0 when it names none; false for bytes that are no message. */
static bool event_step(const uint8_t *p, const uint8_t *end, int64_t *out)
{
    *out = 0;
    while (p < end) {
        uint64_t key, v;
        if (!get_varint(&p, end, &key)) {
            return false;
        }
        if (key == (2 << 3 | WIRE_VARINT)) {
            if (!get_varint(&p, end, &v)) {
                return false;
            }
            *out = (int64_t)v;
        } else if (!skip_value(&p, end, (int)(key & 7))) {
            return false;
        }
    }
    return true;
}

/* The bytes of the frame at p, 0 when it is torn or damaged. */
static size_t frame_bytes(const uint8_t *p, size_t n_left)
{
    if (n_left < FRAME_HEAD + FRAME_TAIL || get_le(p + 8, 4) != mask(tess_crc32c(0, p, 8))) {
        return 0;
    }
    uint64_t n = get_le(p, 8);
    if (n > n_left - FRAME_HEAD - FRAME_TAIL) {
        return 0;
    }
    uint32_t crc = mask(tess_crc32c(0, p + FRAME_HEAD, n));
    return get_le(p + FRAME_HEAD + n, 4) == crc ? FRAME_HEAD + n + FRAME_TAIL : 0;
}

size_t tess__tfevents_keep_bytes(const void *data, size_t n_bytes, int64_t step, int64_t *n_records)
{
    const uint8_t *p = data;
    size_t kept = 0;
    *n_records = 0;
    while (kept < n_bytes) {
        size_t n = frame_bytes(p + kept, n_bytes - kept);
        int64_t found;
        if (n == 0 || !event_step(p + kept + FRAME_HEAD, p + kept + n - FRAME_TAIL, &found) ||
            found > step) {
            break;
        }
        kept += n;
        (*n_records)++;
    }
    return kept;
}

/* ---- the file ----------------------------------------------------------------------------- */

static const char file_prefix[] = "events.out.tfevents.";

/* events.out.tfevents.<seconds>.<host>.<process>.<serial>; seconds have ten digits until 2286, so
 * the newest is the last by name. */
static char *new_path(const char *dir)
{
    char host[256] = "localhost";
    (void)gethostname(host, sizeof(host) - 1);
    return tess_format("%s/%s%010lld.%s.%ld.0", dir, file_prefix, (long long)tess_wall_seconds(),
                       host, (long)getpid());
}

static tess_status find_newest(const char *dir, char **out)
{
    tess_names names = {0};
    *out = NULL;
    TESS_TRY(tess_dir_list(dir, false, &names));
    const char *newest = NULL;
    for (size_t i = 0; i < names.n_names; i++) {
        if (strncmp(names.names[i], file_prefix, sizeof(file_prefix) - 1) == 0) {
            newest = names.names[i];
        }
    }
    tess_status st = TESS_OK;
    if (newest != NULL) {
        *out = tess_format("%s/%s", dir, newest);
        st = *out != NULL ? TESS_OK : TESS_NOMEM;
    }
    tess_names_deinit(&names);
    return st;
}

static tess_status keep_of_file(const char *path, int64_t step, int64_t *out)
{
    tess_bytes map;
    int64_t n_records;
    TESS_TRY(tess_file_map(path, &map));
    *out = (int64_t)tess__tfevents_keep_bytes(map.data, map.n_bytes, step, &n_records);
    tess_file_unmap(&map);
    return TESS_OK;
}

static tess_status begin_file(tess_appender *a)
{
    tess_buf out = {0};
    tess__tfevents_add_version(&out, tess_wall_seconds());
    tess_status st = tess_buf_check(&out);
    if (st == TESS_OK) {
        st = tess_appender_write(a, out.data, out.n_bytes);
    }
    tess_buf_deinit(&out);
    return st;
}

tess_status tess__tfevents_open(const char *dir, bool resume, int64_t step, tess_appender **out)
{
    char *path = NULL;
    int64_t keep = 0;
    *out = NULL;
    TESS_TRY(tess_dir_make(dir));
    tess_status st = resume ? find_newest(dir, &path) : TESS_OK;
    if (st == TESS_OK && path != NULL) {
        st = keep_of_file(path, step, &keep);
    } else if (st == TESS_OK) {
        path = new_path(dir);
        st = path != NULL ? TESS_OK : TESS_NOMEM;
    }
    if (st == TESS_OK) {
        st = tess_appender_open(path, keep, out);
    }
    if (st == TESS_OK && keep == 0) {
        st = begin_file(*out);
    }
    if (st != TESS_OK) {
        tess_appender_close(*out);
        *out = NULL;
    }
    tess_free(path);
    return st;
}
