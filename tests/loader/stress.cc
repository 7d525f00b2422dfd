// stress.cc - the pool alone: every task of every region runs exactly once, for 1 to 8 threads. For
// ThreadSanitizer.
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "pool.h"

namespace {

using pilite::Atomic;
using pilite::Pool;

constexpr int kMaxTasks = 24, kRegions = 300, kMaxThreads = 8;

struct Region {
  int ran[kMaxTasks];  // plain memory: two threads that run one task are a race that the sanitizer sees
  int tasks;
};

int count(int task, void* env, void* cdata) {
  Region* region = static_cast<Region*>(cdata);
  if (task < 0 || task >= region->tasks || static_cast<pilite::ParallelEnv*>(env)->num_task != region->tasks)
    return 1;
  region->ran[task]++;
  return 0;
}

// The region is on the caller's stack and reused at once: a late worker that still touched it would be seen.
bool one_region(Pool* pool, int asked, int threads) {
  Region region = {};
  region.tasks = asked ? asked : threads;
  if (pool->launch(count, &region, asked)) return false;
  for (int i = 0; i < kMaxTasks; ++i) {
    if (region.ran[i] != (i < region.tasks)) return false;
  }
  return true;
}

// A CPU for each of them, in turns: without, a pool starts no more threads than there are CPUs.
void place(int* cpus) {
  cpu_set_t usable;
  CPU_ZERO(&usable);
  if (sched_getaffinity(0, sizeof usable, &usable)) CPU_SET(0, &usable);
  for (int i = 0, cpu = -1; i < kMaxThreads; ++i) {
    do cpu = (cpu + 1) % CPU_SETSIZE;
    while (!CPU_ISSET(cpu, &usable));
    cpus[i] = cpu;
  }
}

bool one_pool(int threads, const int* cpus, uint32_t spin_us) {
  alignas(64) static char memory[sizeof(Pool)];
  memset(memory, 0, sizeof memory);
  Pool* pool = reinterpret_cast<Pool*>(memory);
  bool good = !pool->start(threads, cpus, spin_us);
  for (int i = 0; i < kRegions && good; ++i) {
    if (i % 7 == 0) pool->begin();
    good = one_region(pool, i * 5 % (kMaxTasks + 1), threads);
    if (i % 7 == 6) good = pool->end() && good;
    if (i % 50 == 6) usleep(300);
  }
  pool->end();
  pool->stop();
  return good;
}

}  // namespace

int main() {
  int cpus[kMaxThreads];
  place(cpus);
  for (int threads = 1; threads <= kMaxThreads; ++threads) {
    if (!one_pool(threads, cpus, 50) || !one_pool(threads, cpus, 0))
      return printf("wrong with %d threads\n", threads), 1;
  }
  puts("every task ran once");
  return 0;
}
