// owners.cc - which threads ran the tasks of each slot: one and the same, or several that took turns.
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "pool.h"

namespace {

using pilite::Pool;

constexpr int kThreads = 4, kRegions = 1000;

struct Slots {
  pid_t owner[kThreads];
  bool shared;
};

int run(int task, void*, void* cdata) {
  Slots* slots = static_cast<Slots*>(cdata);
  pid_t* owner = &slots->owner[task % kThreads];
  const pid_t self = static_cast<pid_t>(syscall(SYS_gettid));
  if (*owner && *owner != self) __atomic_store_n(&slots->shared, true, __ATOMIC_RELAXED);
  *owner = self;
  return 0;
}

}  // namespace

int main() {
  alignas(64) static char memory[sizeof(Pool)];
  Pool* pool = reinterpret_cast<Pool*>(memory);
  Slots slots = {};
  const int cpu = sched_getcpu(), cpus[kThreads] = {cpu, cpu, cpu, cpu};  // no thread runs beside another
  if (pool->start(kThreads, cpus, 50)) return 1;
  pool->begin();
  for (int i = 0; i < kRegions; ++i) {
    if (pool->launch(run, &slots, kThreads * (1 + i % 3))) return 1;
  }
  pool->end();
  pool->stop();
  puts(slots.shared ? "threads shared slots" : "each slot has one thread");
  return 0;
}
