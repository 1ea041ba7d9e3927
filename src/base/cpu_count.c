/* SPDX-License-Identifier: Apache-2.0 */
/* How many cores this process may use: the lesser of its affinity mask and its groups' CPU quota.
 *
 * A quota of 1.5 cores counts as 2: a thread that is now and then throttled wastes less than half a
 * core left idle.  Everything is read into fixed buffers, so that the answer needs no memory.
 */
#include "base/cpu_count.h"
#include "tessera/base.h"

#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TEXT_BYTES = 4096, MAX_CPUS = 1 << 16 };

/* The start of a small file as a string; "" when it cannot be read. */
static void read_text(const char *path, char text[TEXT_BYTES])
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, TEXT_BYTES - 1) : 0;
    text[n > 0 ? n : 0] = 0;
    if (fd >= 0) {
        close(fd);
    }
}

static double ratio(const char *quota, const char *period)
{
    double q = strtod(quota, NULL), p = strtod(period, NULL);
    return q > 0 && p > 0 ? q / p : 0;
}

/* cpu.max holds "quota period" or "max period". */
static double quota_v2(const char *dir)
{
    char path[PATH_MAX], text[TEXT_BYTES];
    snprintf(path, sizeof path, "%s/cpu.max", dir);
    read_text(path, text);
    const char *space = strchr(text, ' ');
    return space != NULL ? ratio(text, space + 1) : 0;
}

static double quota_v1(const char *dir)
{
    char path[PATH_MAX], quota[TEXT_BYTES], period[TEXT_BYTES];
    snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", dir);
    read_text(path, quota);
    snprintf(path, sizeof path, "%s/cpu.cfs_period_us", dir);
    read_text(path, period);
    return ratio(quota, period);
}

static double lesser(double a, double b)
{
    return a == 0 || (b > 0 && b < a) ? b : a;
}

/* The least quota from root/group up to root. */
static double walk_up(const char *root, const char *group, double (*quota)(const char *dir))
{
    char dir[PATH_MAX];
    int n = snprintf(dir, sizeof dir, "%s%s", root, group);
    size_t n_root = strlen(root);
    double least = 0;
    if (n < 0 || n >= (int)sizeof dir) {
        return quota(root);
    }
    for (;;) {
        least = lesser(least, quota(dir));
        char *slash = strrchr(dir, '/');
        if (slash == NULL || slash < dir + n_root) {
            return least;
        }
        *slash = 0;
    }
}

/* Is `name` one of the comma-separated controllers in list[0..n)? */
static bool has_controller(const char *list, size_t n, const char *name)
{
    size_t n_name = strlen(name);
    for (size_t at = 0; at < n;) {
        const char *comma = memchr(list + at, ',', n - at);
        size_t end = comma != NULL ? (size_t)(comma - list) : n;
        if (end - at == n_name && memcmp(list + at, name, n_name) == 0) {
            return true;
        }
        at = end + 1;
    }
    return false;
}

double tess__cgroup_cpus(const char *membership, const char *mount)
{
    char text[TEXT_BYTES], root[PATH_MAX];
    double least = 0;
    read_text(membership, text);
    /* A line is "id:controllers:/group"; v2's has no controllers. */
    for (char *state = NULL, *line = strtok_r(text, "\n", &state); line != NULL;
         line = strtok_r(NULL, "\n", &state)) {
        const char *list = strchr(line, ':');
        const char *group = list != NULL ? strchr(list + 1, ':') : NULL;
        if (group == NULL) {
            continue;
        }
        size_t n_list = (size_t)(group - ++list);
        group++;
        if (n_list == 0) {
            least = lesser(least, walk_up(mount, group, quota_v2));
        } else if (has_controller(list, n_list, "cpu")) {
            snprintf(root, sizeof root, "%s/%.*s", mount, (int)n_list, list);
            least = lesser(least, walk_up(root, group, quota_v1));
            snprintf(root, sizeof root, "%s/cpu", mount);
            least = lesser(least, walk_up(root, group, quota_v1));
        }
    }
    return least;
}

static int affinity_count(void)
{
    for (int n = 1024; n <= MAX_CPUS; n *= 2) {
        cpu_set_t *set = CPU_ALLOC(n);
        if (set == NULL) {
            return 1;
        }
        size_t bytes = CPU_ALLOC_SIZE(n);
        int count = sched_getaffinity(0, bytes, set) == 0 ? CPU_COUNT_S(bytes, set) : 0;
        CPU_FREE(set);
        if (count > 0) {
            return count;
        }
    }
    return 1;
}

int tess_cpu_count(void)
{
    int n = affinity_count();
    double quota = tess__cgroup_cpus("/proc/self/cgroup", "/sys/fs/cgroup");
    return quota > 0 && ceil(quota) < n ? (int)ceil(quota) : n;
}
