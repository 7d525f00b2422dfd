// owners.cc - whether each slot has a thread of its own, which runs all of its tasks; with fewer, as many and
// more tasks than threads.
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "pool.h"

namespace {

using pilite::Pool;

constexpr int kThreads = 4, kRegions = 1000, kTasks[] = {2, 3, 4, 5, 8, 12};

struct Slots {
  pid_t owner[kThreads];
  bool shared;
};

int run(int task, void* env, void* cdata) {
  const int tasks = static_cast<pilite::ParallelEnv*>(env)->num_task;
  Slots* slots = static_cast<Slots*>(cdata);
  pid_t* owner = &slots->owner[task % (tasks < kThreads ? tasks : kThreads)];
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
    if (pool->launch(run, &slots, kTasks[i % 6])) return 1;
  }
  pool->end();
  pool->stop();
  for (int a = 0; a < kThreads; ++a)
    for (int b = 0; b < a; ++b) slots.shared |= slots.owner[a] == slots.owner[b];
  puts(slots.shared ? "threads share slots" : "each slot has a thread");
  return 0;
}
