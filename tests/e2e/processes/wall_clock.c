/* Loaded with LD_PRELOAD, shifts a program's wall clock by the seconds in the file named by WALL_CLOCK_OFFSET, which may
   change at run time. The monotonic clock, and waits based on it, are not affected. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
  int failed = syscall(SYS_clock_gettime, clock, now);
  if (failed || clock != CLOCK_REALTIME) return failed;
  FILE *file = fopen(getenv("WALL_CLOCK_OFFSET"), "r");
  long seconds = 0;
  if (file && fscanf(file, "%ld", &seconds) == 1) now->tv_sec += seconds;
  if (file) fclose(file);
  return 0;
}
