/* guard.c - run a model whose inputs and outputs end at pages that cannot be touched.
 *
 * usage: guard MODEL THREADS. A model that reads or writes behind a bound buffer dies with SIGSEGV. Buffers
 * begin at multiples of 64, so up to 63 bytes behind the end stay untested. Also for artifacts of the
 * compiler. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "pilite.h"

enum { PAGE = 65536 }; /* a multiple of every page size */

/* `bytes` bytes, 64-byte aligned, as close in front of an inaccessible page as that allows. */
static void* guarded(size_t bytes) {
  const size_t used = (bytes + 63) / 64 * 64, mapped = (used + PAGE - 1) / PAGE * PAGE;
  char* p = mmap(NULL, mapped + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED || mprotect(p + mapped, PAGE, PROT_NONE)) exit(3);
  return p + mapped - used;
}

static int bind_all(pilite_session* session) {
  const pilite_model* m = pilite_info(session);
  int status = 0;
  for (uint32_t i = 0; i < m->n_inputs + m->n_outputs && !status; ++i) {
    const uint64_t bytes = i < m->n_inputs ? m->inputs[i].nbytes : m->outputs[i - m->n_inputs].nbytes;
    status = pilite_bind(session, i, guarded(bytes), bytes);
  }
  return status;
}

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const pilite_options options = {sizeof options, (uint32_t)atoi(argv[2]), NULL, 0, 0};
  pilite_session* session;
  if (pilite_open(argv[1], &options, &session) || bind_all(session) || pilite_run(session)) {
    return puts(pilite_error()), 1;
  }
  pilite_close(session);
  puts("stayed inside");
  return 0;
}
