/* SPDX-License-Identifier: Apache-2.0 */
/* The process itself: its environment before any library looks at it, and its signals. */
#ifndef TESSERA_CLI_PROCESS_H
#define TESSERA_CLI_PROCESS_H

/* Starts the program over, once, when variables that libgomp and OpenBLAS read as they are loaded
 * are not set; returns when there is nothing to set or when that fails. */
void cli_process_prepare(char **argv);
/* The first SIGINT or SIGTERM sets tess_cancelled, the second ends the process with status 130.
 * SIGPIPE is ignored: a write that fails is reported as any other. */
void cli_process_catch_signals(void);

#endif
