/* SPDX-License-Identifier: Apache-2.0 */
/* The control group's share of the processor. */
#ifndef BASE_CPU_COUNT_H
#define BASE_CPU_COUNT_H

/* Cores that the quotas of control groups leave: the least of v2's cpu.max and v1's cfs quota, from
 * the process's own group up to the root.  `membership` is /proc/self/cgroup, `mount` is
 * /sys/fs/cgroup (arguments so that tests can lay out their own).  0: no quota. */
double tess__cgroup_cpus(const char *membership, const char *mount);

#endif
