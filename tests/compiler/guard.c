/* guard.c - run compiled kernels where every buffer has pages around it that cannot be touched.
 *
 * usage: guard FLUSH WEIGHTS ARENA_BYTES IO_BYTES...
 * FLUSH: "end" or "start", the side on which buffers touch such a page. WEIGHTS: a file. A kernel that reads or
 * writes outside dies with SIGSEGV. Linked with kernels.o, entry.c and launch.c (sharing.py) instead of the loader. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { PAGE = 65536, MAX_IO = 256 }; /* a multiple of every page size */

int pilite_entry(char* weights, char* arena, void* const* io);

typedef int (*task)(int id, void* env, void* data);

static int launch(task f, void* data, int tasks) {
  struct {
    void* unused;
    int32_t tasks;
  } env = {NULL, tasks ? tasks : 3};
  for (int i = 0; i < env.tasks; ++i)
    if (f(i, &env, data)) return 1;
  return 0;
}

extern int (*pilite_launch)(task, void*, int); /* in launch.c, with what TVM's code calls */

static char* guarded(size_t bytes, int at_end) {
  const size_t mapped = (bytes + PAGE - 1) / PAGE * PAGE;
  char* p = mmap(NULL, mapped + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED || mprotect(p + PAGE, mapped, PROT_READ | PROT_WRITE)) exit(3);
  memset(p + PAGE, 0x55, mapped);
  return p + PAGE + (at_end ? mapped - bytes : 0);
}

static char* loaded(const char* path, int at_end) {
  FILE* f = fopen(path, "rb");
  if (!f || fseek(f, 0, SEEK_END)) exit(3);
  const long bytes = ftell(f);
  char* p = guarded((size_t)bytes, at_end);
  rewind(f);
  if (fread(p, 1, (size_t)bytes, f) != (size_t)bytes) exit(3);
  fclose(f);
  return p;
}

int main(int argc, char** argv) {
  void* io[MAX_IO];
  if (argc < 4 || argc - 4 > MAX_IO) return 2;
  const int at_end = !strcmp(argv[1], "end");
  char* weights = loaded(argv[2], at_end);
  char* arena = guarded((size_t)atoll(argv[3]), at_end);
  for (int i = 4; i < argc; ++i) io[i - 4] = guarded((size_t)atoll(argv[i]), at_end);
  pilite_launch = launch;
  if (pilite_entry(weights, arena, io)) return 1;
  puts("stayed inside");
  return 0;
}
