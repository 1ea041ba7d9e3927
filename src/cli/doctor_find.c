/* SPDX-License-Identifier: Apache-2.0 */
/* What doctor finds out: files under /proc and /sys, libraries, graphics processors.
 *
 * A library is asked for its version by symbol name, among those that are in the process: no header
 * is included and none is linked for it, so a build without one still runs and says so.
 */
#include "cli/doctor.h"

#include "tessera/index.h"

#include <ctype.h>
#include <dlfcn.h>
#include <gnu/libc-version.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

enum { FILE_MAX = 1 << 22 };

/* A small text file; NULL when it cannot be read.  The caller frees it with tess_free. */
static char *read_text(const char *path)
{
    uint8_t *data;
    size_t n;
    return tess_file_read(path, FILE_MAX, &data, &n) == TESS_OK ? (char *)data : NULL;
}

/* The text behind "name" and a colon at the start of a line; NULL: no such line. */
static const char *find_line(const char *text, const char *name)
{
    size_t n = strlen(name);
    for (const char *p = text; p != NULL && *p != '\0';) {
        if (strncmp(p, name, n) == 0) {
            const char *colon = p + n + strspn(p + n, " \t");
            if (*colon == ':') {
                return colon + 1;
            }
        }
        p = strchr(p, '\n');
        p += p != NULL;
    }
    return NULL;
}

void cli_doctor_features(tess_json_writer *w, const char *cpuinfo)
{
    static const char *const wanted[] = {
        "sse4_2",   "avx",      "f16c",        "fma",         "avx2",        "avx_vnni",
        "avx512f",  "avx512bw", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile",
        "amx_bf16", "amx_int8", "asimd",       "sve",         "bf16",        "i8mm",
    };
    char *text = read_text(cpuinfo);
    const char *flags = text != NULL ? find_line(text, "flags") : NULL;
    if (text != NULL && flags == NULL) {
        flags = find_line(text, "Features");
    }
    for (const char *p = flags; p != NULL && *p != '\0' && *p != '\n';) {
        p += strspn(p, " \t");
        size_t n = strcspn(p, " \t\n");
        for (int64_t i = 0; i < TESS_COUNT(wanted); i++) {
            if (strlen(wanted[i]) == n && memcmp(wanted[i], p, n) == 0) {
                tess_json_add_string(w, wanted[i]);
            }
        }
        p += n;
    }
    tess_free(text);
}

int64_t cli_doctor_meminfo(const char *path, const char *name)
{
    char *text = read_text(path);
    const char *value = text != NULL ? find_line(text, name) : NULL;
    int64_t kib = value != NULL ? strtoll(value, NULL, 10) : 0;
    tess_free(text);
    return kib * 1024;
}

/* A number in a file; 0 when there is none ("max") or when it stands for no limit. */
static int64_t read_limit(const char *mount, const char *group, const char *file)
{
    char *path = tess_format("%s%s/%s", mount, group, file);
    char *text = path != NULL ? read_text(path) : NULL;
    int64_t n = text != NULL ? strtoll(text, NULL, 10) : 0;
    tess_free(text);
    tess_free(path);
    return n > 0 && n < INT64_MAX / 2 ? n : 0;
}

/* `group` loses a component at a time, down to "". */
static int64_t least_limit(const char *mount, char *group, const char *file)
{
    int64_t least = 0;
    for (;;) {
        int64_t n = read_limit(mount, group, file);
        least = n > 0 && (least == 0 || n < least) ? n : least;
        char *slash = strrchr(group, '/');
        if (slash == NULL) {
            return least;
        }
        *slash = '\0';
    }
}

int64_t cli_doctor_memory_limit(const char *membership, const char *mount)
{
    char *text = read_text(membership);
    char *v1_mount = tess_format("%s/memory", mount);
    int64_t least = 0;
    for (char *p = text; p != NULL && v1_mount != NULL && *p != '\0';) {
        char *end = p + strcspn(p, "\n"), *next = end + (*end == '\n');
        *end = '\0';
        char *group = strchr(p, ':');
        char *path = group != NULL ? strchr(group + 1, ':') : NULL;
        bool v1 = path != NULL && strncmp(group, ":memory:", 8) == 0;
        if (path != NULL && (v1 || path == group + 1)) {
            int64_t n = v1 ? least_limit(v1_mount, path + 1, "memory.limit_in_bytes")
                           : least_limit(mount, path + 1, "memory.max");
            least = n > 0 && (least == 0 || n < least) ? n : least;
        }
        p = next;
    }
    tess_free(text);
    tess_free(v1_mount);
    return least;
}

int64_t cli_doctor_free_bytes(const char *path)
{
    struct statvfs fs;
    return statvfs(path, &fs) == 0 ? (int64_t)(fs.f_bavail * fs.f_frsize) : 0;
}

/* ---- libraries ---------------------------------------------------------------------------- */

/* How a library tells its version. */
typedef enum how {
    HOW_STRING,  /* const char *f(void) */
    HOW_BYTES,   /* int f(void), 0x00MMmmpp */
    HOW_HUNDRED, /* unsigned f(void), MMmmpp in decimal */
    HOW_INTS,    /* const struct {int major, minor, patch; ...} *f(void) */
    HOW_LOADED,  /* it has no function: the name of its file */
} how;

static const struct {
    const char *name, *symbol;
    how how;
} libraries[] = {
    {"onednn", "dnnl_version", HOW_INTS},
    {"openblas", "openblas_get_config", HOW_STRING},
    {"openmp", "omp_get_max_threads", HOW_LOADED},
    {"libjpeg", "jpeg_read_header", HOW_LOADED},
    {"libpng", "png_access_version_number", HOW_HUNDRED},
    {"libwebp", "WebPGetDecoderVersion", HOW_BYTES},
    {"utf8proc", "utf8proc_version", HOW_STRING},
    {"sqlite", "sqlite3_libversion", HOW_STRING},
    {"microhttpd", "MHD_get_version", HOW_STRING},
    {"jansson", "jansson_version_str", HOW_STRING},
    {"xxhash", "XXH_versionNumber", HOW_HUNDRED},
    {"zlib", "zlibVersion", HOW_STRING},
};

/* "libjpeg.so.62.3.0": the file a symbol came from, links followed. */
static void file_of(void *symbol, char *out, size_t out_bytes)
{
    Dl_info info;
    char path[4096];
    const char *name = "present";
    if (dladdr(symbol, &info) != 0 && info.dli_fname != NULL) {
        name = realpath(info.dli_fname, path) != NULL ? path : info.dli_fname;
        name = strrchr(name, '/') != NULL ? strrchr(name, '/') + 1 : name;
    }
    snprintf(out, out_bytes, "%.200s", name);
}

static void version_of(void *symbol, how h, char *out, size_t out_bytes)
{
    union {
        void *symbol;
        const char *(*string)(void);
        unsigned (*number)(void);
        const int *(*ints)(void);
    } f = {.symbol = symbol};
    unsigned v = h == HOW_BYTES || h == HOW_HUNDRED ? f.number() : 0;
    switch (h) {
    case HOW_STRING:
        snprintf(out, out_bytes, "%s", f.string());
        break;
    case HOW_BYTES:
        snprintf(out, out_bytes, "%u.%u.%u", v >> 16, v >> 8 & 255, v & 255);
        break;
    case HOW_HUNDRED:
        snprintf(out, out_bytes, "%u.%u.%u", v / 10000, v / 100 % 100, v % 100);
        break;
    case HOW_INTS:
        snprintf(out, out_bytes, "%d.%d.%d", f.ints()[0], f.ints()[1], f.ints()[2]);
        break;
    case HOW_LOADED:
        file_of(symbol, out, out_bytes);
        break;
    }
}

void cli_doctor_libraries(tess_json_writer *w)
{
    tess_json_key(w, "libraries");
    tess_json_begin_object(w);
    for (int64_t i = 0; i < TESS_COUNT(libraries); i++) {
        char version[256];
        void *symbol = dlsym(RTLD_DEFAULT, libraries[i].symbol);
        tess_json_key(w, libraries[i].name);
        if (symbol == NULL) {
            tess_json_add_null(w);
            continue;
        }
        version_of(symbol, libraries[i].how, version, sizeof(version));
        tess_json_add_string(w, version);
    }
    tess_json_key(w, "faiss");
    tess_json_add_string(w, tess_index_library());
    tess_json_key(w, "libc");
    tess_json_add_string(w, gnu_get_libc_version());
    tess_json_end_object(w);
}

/* ---- graphics processors ------------------------------------------------------------------ */

/* The driver's interface, as far as doctor needs it (CUDA driver API: CUresult is an int). */
typedef struct cuda {
    int (*init)(unsigned flags);
    int (*driver_version)(int *out);
    int (*count)(int *out);
    int (*get)(int *out_device, int ordinal);
    int (*name)(char *out, int n_bytes, int device);
    int (*memory)(size_t *out, int device);
    int (*attribute)(int *out, int which, int device);
} cuda;

enum { CU_MAJOR = 75, CU_MINOR = 76 };

static bool load_cuda(void *library, cuda *out)
{
    static const char *const names[] = {
        "cuInit",          "cuDriverGetVersion",  "cuDeviceGetCount",    "cuDeviceGet",
        "cuDeviceGetName", "cuDeviceTotalMem_v2", "cuDeviceGetAttribute"};
    void *symbols[7];
    for (int i = 0; i < 7; i++) {
        symbols[i] = dlsym(library, names[i]);
        if (symbols[i] == NULL) {
            return false;
        }
    }
    memcpy(out, symbols, sizeof(symbols));
    return true;
}

static void add_devices(tess_json_writer *w, const cuda *c)
{
    int n = 0, device, major = 0, minor = 0;
    char name[256], line[400];
    size_t bytes = 0;
    tess_json_key(w, "devices");
    tess_json_begin_array(w);
    for (int i = 0; c->count(&n) == 0 && i < n; i++) {
        if (c->get(&device, i) != 0 || c->name(name, sizeof(name), device) != 0) {
            continue;
        }
        (void)c->memory(&bytes, device);
        (void)c->attribute(&major, CU_MAJOR, device);
        (void)c->attribute(&minor, CU_MINOR, device);
        snprintf(line, sizeof(line), "%s (%.1f GiB, compute capability %d.%d)", name,
                 (double)bytes / (1 << 30), major, minor);
        tess_json_add_string(w, line);
    }
    tess_json_end_array(w);
}

static void add_driver(tess_json_writer *w)
{
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    cuda c;
    int version = 0;
    tess_json_key(w, "driver_library");
    tess_json_add_bool(w, library != NULL);
    if (library == NULL) {
        return;
    }
    if (load_cuda(library, &c) && c.init(0) == 0 && c.driver_version(&version) == 0) {
        char text[32];
        snprintf(text, sizeof(text), "%d.%d", version / 1000, version % 1000 / 10);
        tess_json_key(w, "cuda_version");
        tess_json_add_string(w, text);
        add_devices(w, &c);
    }
}

/* /dev/nvidia0, /dev/nvidia1, ...; not nvidiactl and the like. */
static int64_t count_device_files(void)
{
    tess_names names = {0};
    int64_t n = 0;
    if (tess_dir_list("/dev", false, &names) == TESS_OK) {
        for (size_t i = 0; i < names.n_names; i++) {
            n += strncmp(names.names[i], "nvidia", 6) == 0 &&
                 isdigit((unsigned char)names.names[i][6]);
        }
    }
    tess_names_deinit(&names);
    return n;
}

void cli_doctor_gpu(tess_json_writer *w)
{
    tess_json_key(w, "gpu");
    tess_json_begin_object(w);
    tess_json_key(w, "device_files");
    tess_json_add_int(w, count_device_files());
    add_driver(w);
    tess_json_end_object(w);
}
