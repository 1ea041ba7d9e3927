/* SPDX-License-Identifier: Apache-2.0 */
/* What doctor finds out.  Paths are arguments so that tests can lay out their own. */
#ifndef TESSERA_CLI_DOCTOR_H
#define TESSERA_CLI_DOCTOR_H

#include "tessera/base.h"

/* The flags of `cpuinfo` that decide speed here, as array items. */
void cli_doctor_features(tess_json_writer *w, const char *cpuinfo);
/* A line of /proc/meminfo in bytes; 0 when it is not there. */
int64_t cli_doctor_meminfo(const char *path, const char *name);
/* The least memory limit from the process's control group up to the root; 0: none. */
int64_t cli_doctor_memory_limit(const char *membership, const char *mount);
/* Free bytes of a file system; 0 when it is not there. */
int64_t cli_doctor_free_bytes(const char *path);
/* "libraries": {"onednn": "2.6.3", ...}. */
void cli_doctor_libraries(tess_json_writer *w);
/* "gpu": {...}: device files, driver library, driver version, names. */
void cli_doctor_gpu(tess_json_writer *w);

#endif
