/* marks.c - preloaded into pilite-run: takes the time at each mark of an artifact that was built with markers.
 *
 * A mark is a call of getpriority(0x5A3, stage), which the artifact finds here before it finds libc's. When the
 * program ends, pairs of (nanoseconds, stage) are in the file that PILITE_MARKS names; before them stand the
 * nanoseconds of kChain dependent exclusive-ors, one cycle each, and kChain: the clock of the core.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { kMark = 0x5A3, kChain = 100000, kTries = 300, kMost = 1 << 22 };

static uint64_t (*marks)[2];
static uint32_t count;
static uint64_t chain_ns;

static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Nanoseconds of kChain dependent instructions of one cycle each. */
static uint64_t chain(void) {
  uint64_t x = 1, key = (uint64_t)(uintptr_t)&count;
  const uint64_t start = now();
  for (int i = 0; i < kChain / 100; ++i)
#if defined(__aarch64__)
    __asm__ volatile(".rept 100\n eor %0, %0, %1\n .endr" : "+r"(x) : "r"(key));
#else
    __asm__ volatile(".rept 100\n xor %1, %0\n .endr" : "+r"(x) : "r"(key));
#endif
  return now() - start;
}

__attribute__((constructor)) static void begin(void) {
  marks = calloc(kMost, sizeof *marks);
  chain_ns = chain();
  for (int i = 0; i < kTries; ++i) { /* the clock goes up, and other programs take their turns */
    const uint64_t again = chain();
    if (again < chain_ns) chain_ns = again;
  }
}

__attribute__((visibility("default"))) int getpriority(int which, unsigned stage) {
  if (which == kMark && marks && count < kMost) {
    marks[count][0] = now();
    marks[count++][1] = stage;
  }
  return -1;
}

__attribute__((destructor)) static void end(void) {
  const char* path = getenv("PILITE_MARKS");
  FILE* file = path && marks ? fopen(path, "wb") : NULL;
  if (!file) return;
  const uint64_t head[2] = {chain_ns, kChain};
  fwrite(head, sizeof head, 1, file);
  fwrite(marks, sizeof *marks, count, file);
  fclose(file);
}
