/* SPDX-License-Identifier: Apache-2.0 */
/* rows.sqlite, written once and then only read.
 *
 * Writing: one transaction in a private directory, rollback journal in memory, synced at commit, so
 * the file that the manifest names is complete.  Reading: opened immutable (no locks, no journal,
 * pages mapped), with SQLite's defences against crafted files on, after the checksum was compared.
 * Every value goes through a bound parameter; no SQL is put together from input.
 */
#include "index/rows.h"

#include <pthread.h>
#include <sqlite3.h>
#include <string.h>

#define APPLICATION_ID "1413829459" /* "TESS" */
#define MAP_BYTES      "1073741824"

/* The statements a handle keeps, prepared at their first use. */
enum { ROW_INSERT, CAPTION_INSERT, ROW_BY_ID, ROW_BY_KEY, ROW_BY_WORDS, ROW_COUNT, N_STATEMENTS };

static const char *const statement_sql[N_STATEMENTS] = {
    [ROW_INSERT] = "INSERT INTO rows(id,key,kind,path,offset,n_bytes,captions,width,height)"
                   " VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9)",
    [CAPTION_INSERT] = "INSERT INTO captions(rowid,text) VALUES(?1,?2)",
    [ROW_BY_ID] = "SELECT id,key,kind,path,offset,n_bytes,captions,width,height"
                  " FROM rows WHERE id=?1",
    [ROW_BY_KEY] = "SELECT id FROM rows WHERE key=?1",
    [ROW_BY_WORDS] = "SELECT rowid,bm25(captions) FROM captions WHERE captions MATCH ?1"
                     " ORDER BY bm25(captions),rowid LIMIT ?2",
    [ROW_COUNT] = "SELECT count(*) FROM rows WHERE kind=?1",
};

struct tess__rows {
    sqlite3 *db;
    sqlite3_stmt *statements[N_STATEMENTS];
    pthread_mutex_t lock; /* over a statement's bind, step and reset */
    char *path;           /* for messages */
};

/* ---- SQLite's errors ----------------------------------------------------------------------- */

static tess_status status_of(int rc)
{
    static const struct {
        int rc;
        tess_status status;
    } table[] = {
        {SQLITE_NOMEM, TESS_NOMEM},   {SQLITE_CORRUPT, TESS_FORMAT},
        {SQLITE_NOTADB, TESS_FORMAT}, {SQLITE_CONSTRAINT, TESS_INVALID},
        {SQLITE_ERROR, TESS_FORMAT},
    };
    for (int64_t i = 0; i < TESS_COUNT(table); i++) {
        if (table[i].rc == (rc & 0xff)) {
            return table[i].status;
        }
    }
    return TESS_IO;
}

/* The translating macro: a result code that is none of OK, ROW, DONE returns with SQLite's text. */
#define TRY_SQL(r, what, expr)                                                                     \
    do {                                                                                           \
        int rc_ = (expr);                                                                          \
        if (rc_ != SQLITE_OK && rc_ != SQLITE_ROW && rc_ != SQLITE_DONE) {                         \
            return TESS_FAIL(status_of(rc_), "%s: cannot %s: %s", (r)->path, (what),               \
                             (r)->db ? sqlite3_errmsg((r)->db) : sqlite3_errstr(rc_));             \
        }                                                                                          \
    } while (0)

static tess_status run(tess__rows *r, const char *what, const char *sql)
{
    TRY_SQL(r, what, sqlite3_exec(r->db, sql, NULL, NULL, NULL));
    return TESS_OK;
}

static tess_status statement(tess__rows *r, int which, sqlite3_stmt **out)
{
    if (!r->statements[which]) {
        TRY_SQL(r, "prepare a statement",
                sqlite3_prepare_v3(r->db, statement_sql[which], -1, SQLITE_PREPARE_PERSISTENT,
                                   &r->statements[which], NULL));
    }
    *out = r->statements[which];
    return TESS_OK;
}

static tess__rows *rows_new(const char *path)
{
    tess__rows *r = tess_alloc(sizeof(*r));
    char *copy = r ? tess_strdup(path) : NULL;
    if (!copy) {
        tess_free(r);
        return NULL;
    }
    r->path = copy;
    pthread_mutex_init(&r->lock, NULL);
    return r;
}

void tess__rows_close(tess__rows *r)
{
    if (!r) {
        return;
    }
    for (int i = 0; i < N_STATEMENTS; i++) {
        sqlite3_finalize(r->statements[i]);
    }
    sqlite3_close(r->db);
    pthread_mutex_destroy(&r->lock);
    tess_free(r->path);
    tess_free(r);
}

/* ---- writing ------------------------------------------------------------------------------- */

static tess_status create(tess__rows *r)
{
    TRY_SQL(r, "create it",
            sqlite3_open_v2(r->path, &r->db,
                            SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
                            NULL));
    sqlite3_extended_result_codes(r->db, 1);
    return run(r, "create its tables",
               "PRAGMA journal_mode=MEMORY;"
               "PRAGMA synchronous=FULL;"
               "PRAGMA locking_mode=EXCLUSIVE;"
               "PRAGMA temp_store=MEMORY;"
               "PRAGMA application_id=" APPLICATION_ID ";"
               "PRAGMA user_version=1;"
               "BEGIN;"
               "CREATE TABLE rows("
               " id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, kind INTEGER NOT NULL,"
               " path TEXT, offset INTEGER NOT NULL, n_bytes INTEGER NOT NULL,"
               " captions TEXT, width INTEGER NOT NULL, height INTEGER NOT NULL);"
               "CREATE VIRTUAL TABLE captions USING fts5("
               " text, content='', tokenize='unicode61 remove_diacritics 2');");
}

tess_status tess__rows_create(const char *path, tess__rows **out)
{
    tess__rows *r = rows_new(path);
    if (!r) {
        return TESS_NOMEM;
    }
    tess_status st = create(r);
    if (st != TESS_OK) {
        tess__rows_close(r);
        return st;
    }
    *out = r;
    return TESS_OK;
}

/* Steps a statement that gives no rows, and makes it ready for its next use. */
static tess_status step_done(tess__rows *r, sqlite3_stmt *s, const char *what)
{
    int rc = sqlite3_step(s);
    sqlite3_reset(s);
    sqlite3_clear_bindings(s);
    TRY_SQL(r, what, rc);
    return TESS_OK;
}

static tess_status insert_captions(tess__rows *r, const tess_row *row, int64_t id)
{
    tess_buf text = {0};
    sqlite3_stmt *s = NULL;
    tess_status st = tess__captions_text(row->captions, row->key, &text);
    if (st == TESS_OK) {
        st = statement(r, CAPTION_INSERT, &s);
    }
    if (st == TESS_OK) {
        sqlite3_bind_int64(s, 1, id);
        sqlite3_bind_text64(s, 2, text.data ? text.data : "", text.n_bytes, SQLITE_STATIC,
                            SQLITE_UTF8);
        st = step_done(r, s, "add captions");
    }
    tess_buf_deinit(&text);
    return st;
}

static tess_status insert_row(tess__rows *r, const tess_row *row, int64_t id)
{
    sqlite3_stmt *s = NULL;
    TESS_TRY(statement(r, ROW_INSERT, &s));
    sqlite3_bind_int64(s, 1, id);
    sqlite3_bind_text(s, 2, row->key, -1, SQLITE_STATIC);
    sqlite3_bind_int(s, 3, (int)row->kind);
    sqlite3_bind_text(s, 4, row->path, -1, SQLITE_STATIC);
    sqlite3_bind_int64(s, 5, row->offset);
    sqlite3_bind_int64(s, 6, row->n_bytes);
    sqlite3_bind_text(s, 7, row->captions, -1, SQLITE_STATIC);
    sqlite3_bind_int64(s, 8, row->width);
    sqlite3_bind_int64(s, 9, row->height);
    tess_status st = step_done(r, s, "add a row");
    if (sqlite3_extended_errcode(r->db) == SQLITE_CONSTRAINT_UNIQUE) {
        return TESS_FAIL(TESS_INVALID, "%s: this key is already in the index; keys are unique",
                         row->key);
    }
    TESS_TRY(st);
    return row->captions ? insert_captions(r, row, id) : TESS_OK;
}

tess_status tess__rows_add(tess__rows *r, const tess_row *rows, int64_t n, int64_t first)
{
    TESS_TRY(run(r, "begin a batch", "SAVEPOINT batch"));
    tess_status st = TESS_OK;
    for (int64_t i = 0; i < n && st == TESS_OK; i++) {
        st = insert_row(r, &rows[i], first + i);
    }
    /* sqlite3_exec leaves this thread's message alone when it succeeds. */
    const char *sql = st == TESS_OK ? "RELEASE batch" : "ROLLBACK TO batch; RELEASE batch";
    tess_status ended = run(r, "end a batch", sql);
    return st != TESS_OK ? st : ended;
}

tess_status tess__rows_finish(tess__rows *r)
{
    tess_status st =
        run(r, "merge the full-text table", "INSERT INTO captions(captions) VALUES('optimize')");
    if (st == TESS_OK) {
        st = run(r, "commit", "COMMIT");
    }
    tess__rows_close(r);
    return st;
}

/* ---- opening ------------------------------------------------------------------------------- */

/* SQLite's URI form of a path: what is not plain is %XX. */
static void write_uri(const char *path, tess_buf *out)
{
    tess_buf_adds(out, "file:");
    for (const char *p = path; *p; p++) {
        unsigned char c = (unsigned char)*p;
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                     strchr("/._-", c);
        tess_buf_addf(out, plain ? "%c" : "%%%02X", c);
    }
    tess_buf_adds(out, "?immutable=1");
}

static tess_status connect_reader(tess__rows *r)
{
    tess_buf uri = {0};
    write_uri(r->path, &uri);
    tess_status st = tess_buf_check(&uri);
    int rc = SQLITE_NOMEM;
    if (st == TESS_OK) {
        rc = sqlite3_open_v2(uri.data, &r->db,
                             SQLITE_OPEN_READONLY | SQLITE_OPEN_URI | SQLITE_OPEN_NOMUTEX, NULL);
    }
    tess_buf_deinit(&uri);
    TESS_TRY(st);
    TRY_SQL(r, "open it", rc);
    sqlite3_db_config(r->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    sqlite3_db_config(r->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    sqlite3_db_config(r->db, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL);
    sqlite3_db_config(r->db, SQLITE_DBCONFIG_ENABLE_VIEW, 0, NULL);
    return run(r, "open it", "PRAGMA mmap_size=" MAP_BYTES "; PRAGMA query_only=1;");
}

static tess_status read_number(tess__rows *r, const char *sql, int64_t *out)
{
    sqlite3_stmt *s = NULL;
    TRY_SQL(r, "read it", sqlite3_prepare_v2(r->db, sql, -1, &s, NULL));
    int rc = sqlite3_step(s);
    *out = rc == SQLITE_ROW ? sqlite3_column_int64(s, 0) : -1;
    sqlite3_finalize(s);
    TRY_SQL(r, "read it", rc);
    return TESS_OK;
}

/* Ids are 0..n-1, so the largest one counts the rows without a scan. */
static tess_status check_reader(tess__rows *r, int64_t n_rows)
{
    int64_t application = 0, version = 0, last = 0;
    TESS_TRY(read_number(r, "PRAGMA application_id", &application));
    TESS_TRY(read_number(r, "PRAGMA user_version", &version));
    TESS_TRY(read_number(r, "SELECT max(id) FROM rows", &last));
    if (application != 0x54455353 || version != 1 || last != n_rows - 1) {
        return TESS_FAIL(TESS_FORMAT,
                         "%s: expected %lld rows of version 1, found %lld of version %lld", r->path,
                         (long long)n_rows, (long long)last + 1, (long long)version);
    }
    return TESS_OK;
}

tess_status tess__rows_open(const char *path, const tess__file_facts *facts, int64_t n_rows,
                            tess__rows **out)
{
    tess_bytes map = {0};
    TESS_TRY(tess__file_map_checked(path, facts, &map));
    tess_file_unmap(&map);
    tess__rows *r = rows_new(path);
    if (!r) {
        return TESS_NOMEM;
    }
    tess_status st = connect_reader(r);
    if (st == TESS_OK) {
        st = check_reader(r, n_rows);
    }
    if (st != TESS_OK) {
        tess__rows_close(r);
        return st;
    }
    *out = r;
    return TESS_OK;
}

/* ---- reading ------------------------------------------------------------------------------- */

static const char *column_text(sqlite3_stmt *s, int column, tess_arena *arena, bool *failed)
{
    const char *text = (const char *)sqlite3_column_text(s, column);
    if (!text) {
        return NULL;
    }
    const char *copy = tess_arena_strndup(arena, text, (size_t)sqlite3_column_bytes(s, column));
    *failed |= !copy;
    return copy;
}

static tess_status copy_row(sqlite3_stmt *s, tess_arena *arena, tess_row *out)
{
    bool failed = false;
    *out = (tess_row){
        .id = sqlite3_column_int64(s, 0),
        .key = column_text(s, 1, arena, &failed),
        .kind = sqlite3_column_int(s, 2) == TESS_ROW_TEXT ? TESS_ROW_TEXT : TESS_ROW_IMAGE,
        .path = column_text(s, 3, arena, &failed),
        .offset = sqlite3_column_int64(s, 4),
        .n_bytes = sqlite3_column_int64(s, 5),
        .captions = column_text(s, 6, arena, &failed),
        .width = sqlite3_column_int64(s, 7),
        .height = sqlite3_column_int64(s, 8),
    };
    return failed ? TESS_NOMEM : TESS_OK;
}

/* Steps to the one row; TESS_INVALID naming `what` when there is none. */
static tess_status step_row(tess__rows *r, sqlite3_stmt *s, const char *what)
{
    int rc = sqlite3_step(s);
    TRY_SQL(r, "read a row", rc);
    return rc == SQLITE_ROW ? TESS_OK : TESS_FAIL(TESS_INVALID, "the index has no row %s", what);
}

static tess_status get_locked(tess__rows *r, int64_t id, tess_arena *arena, tess_row *out)
{
    sqlite3_stmt *s = NULL;
    TESS_TRY(statement(r, ROW_BY_ID, &s));
    sqlite3_bind_int64(s, 1, id);
    char what[32];
    snprintf(what, sizeof(what), "%lld", (long long)id);
    tess_status st = step_row(r, s, what);
    if (st == TESS_OK) {
        st = copy_row(s, arena, out);
    }
    sqlite3_reset(s);
    return st;
}

tess_status tess__rows_get(tess__rows *r, int64_t id, tess_arena *arena, tess_row *out)
{
    pthread_mutex_lock(&r->lock);
    tess_status st = get_locked(r, id, arena, out);
    pthread_mutex_unlock(&r->lock);
    return st;
}

static tess_status find_locked(tess__rows *r, const char *key, int64_t *out_id)
{
    sqlite3_stmt *s = NULL;
    TESS_TRY(statement(r, ROW_BY_KEY, &s));
    sqlite3_bind_text(s, 1, key, -1, SQLITE_STATIC);
    tess_status st = step_row(r, s, key);
    if (st == TESS_OK) {
        *out_id = sqlite3_column_int64(s, 0);
    }
    sqlite3_reset(s);
    sqlite3_clear_bindings(s);
    return st;
}

tess_status tess__rows_find(tess__rows *r, const char *key, int64_t *out_id)
{
    pthread_mutex_lock(&r->lock);
    tess_status st = find_locked(r, key, out_id);
    pthread_mutex_unlock(&r->lock);
    return st;
}

static tess_status count_locked(tess__rows *r, tess_row_kind kind, int64_t *out)
{
    sqlite3_stmt *s = NULL;
    TESS_TRY(statement(r, ROW_COUNT, &s));
    sqlite3_bind_int(s, 1, (int)kind);
    tess_status st = step_row(r, s, "at all");
    if (st == TESS_OK) {
        *out = sqlite3_column_int64(s, 0);
    }
    sqlite3_reset(s);
    return st;
}

tess_status tess__rows_count(tess__rows *r, tess_row_kind kind, int64_t *out)
{
    pthread_mutex_lock(&r->lock);
    tess_status st = count_locked(r, kind, out);
    pthread_mutex_unlock(&r->lock);
    return st;
}

/* FTS5's query language with nothing but quoted words: all of them must be there. */
static void write_query(const char *words, tess_buf *out)
{
    const char *space = " \t\r\n\f\v";
    for (const char *p = words + strspn(words, space); *p; p += strspn(p, space)) {
        size_t n = strcspn(p, space);
        tess_buf_adds(out, out->n_bytes ? " \"" : "\"");
        for (size_t i = 0; i < n; i++) {
            tess_buf_add(out, p[i] == '"' ? "\"\"" : p + i, p[i] == '"' ? 2 : 1);
        }
        tess_buf_adds(out, "\"");
        p += n;
    }
}

static tess_status match_locked(tess__rows *r, const tess_buf *query, int64_t k, tess_hit *out_hits,
                                int64_t *out_n_hits)
{
    sqlite3_stmt *s = NULL;
    TESS_TRY(statement(r, ROW_BY_WORDS, &s));
    sqlite3_bind_text64(s, 1, query->data, query->n_bytes, SQLITE_STATIC, SQLITE_UTF8);
    sqlite3_bind_int64(s, 2, k);
    int64_t n = 0;
    int rc = sqlite3_step(s);
    for (; rc == SQLITE_ROW && n < k; rc = sqlite3_step(s)) {
        out_hits[n++] = (tess_hit){.row = sqlite3_column_int64(s, 0),
                                   .score = (float)-sqlite3_column_double(s, 1)};
    }
    sqlite3_reset(s);
    sqlite3_clear_bindings(s);
    *out_n_hits = n;
    TRY_SQL(r, "match words", rc);
    return TESS_OK;
}

tess_status tess__rows_match(tess__rows *r, const char *words, int64_t k, tess_hit *out_hits,
                             int64_t *out_n_hits)
{
    tess_buf query = {0};
    write_query(words, &query);
    tess_status st = tess_buf_check(&query);
    *out_n_hits = 0;
    if (st == TESS_OK && query.n_bytes) {
        pthread_mutex_lock(&r->lock);
        st = match_locked(r, &query, k, out_hits, out_n_hits);
        pthread_mutex_unlock(&r->lock);
    }
    tess_buf_deinit(&query);
    return st;
}
