/* With LD_PRELOAD the wall clock of a program is off by the seconds in the file that WALL_CLOCK_OFFSET names, which may
   change while it runs. The monotonic clock, and whatever waits by it, stays. */
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
