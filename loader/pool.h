// pool.h - fork and join for one session. Linux futexes; no heap, no libstdc++.
//
//   caller    begin ─── launch ──────── launch ─── end        one thread at a time
//   workers   woken     tasks   spin    tasks      spin 50 us, then asleep
//
// A region has one slot per thread; slot s holds the tasks s, s + slots, s + 2 slots ... Thread s takes slot
// s, so that a core meets the same rows again in the next region. Who is done early takes slots that nobody
// has begun: a worker that is late, or that shares its core, delays nobody and no task is ever dropped.
//
// With PILITE_COUNTED, for `estimate`, a thread does its own slot and sleeps where it would spin: who does
// what is decided here, not by the scheduler of a machine that has fewer cores than the one that is modelled.
#pragma once
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "libc.h"
#include "pilite.h"

namespace pilite {

// std::atomic without the C++ library. Sequentially consistent unless the name says otherwise.
template <class T>
struct Atomic {
  T value;
  T load() const { return __atomic_load_n(&value, __ATOMIC_SEQ_CST); }
  T acquire() const { return __atomic_load_n(&value, __ATOMIC_ACQUIRE); }
  T relaxed() const { return __atomic_load_n(&value, __ATOMIC_RELAXED); }
  void store(T v) { __atomic_store_n(&value, v, __ATOMIC_SEQ_CST); }
  void release(T v) { __atomic_store_n(&value, v, __ATOMIC_RELEASE); }
  void set_relaxed(T v) { __atomic_store_n(&value, v, __ATOMIC_RELAXED); }
  T add(T v) { return __atomic_add_fetch(&value, v, __ATOMIC_SEQ_CST); }
  bool exchange(T from, T to) {
    return __atomic_compare_exchange_n(&value, &from, to, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
  }
};

inline void futex_wait(Atomic<uint32_t>* word, uint32_t expected) {
  syscall(SYS_futex, &word->value, FUTEX_WAIT_PRIVATE, expected, nullptr, nullptr, 0);
}
inline void futex_wake_all(Atomic<uint32_t>* word) {
  syscall(SYS_futex, &word->value, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

inline void cpu_relax() {
#if defined(__aarch64__)
  __asm__ volatile("isb" ::: "memory");  // "yield" does nothing on these cores, isb waits some tens of cycles
#else
  __asm__ volatile("pause" ::: "memory");
#endif
}

// Says "spin once more" until `microseconds` have passed since its first call; yields the core in the second
// half.
class Spinner {
 public:
  explicit Spinner(uint32_t microseconds) : limit_(microseconds * 1000ull) {}
  bool again() {
    if (!limit_) return false;
    cpu_relax();
    if (++turns_ % 16) return true;  // reading the clock costs more than a turn
    const uint64_t now = nanoseconds();
    if (!start_) start_ = now;
    if (now - start_ > limit_ / 2) sched_yield();
    return now - start_ < limit_;
  }

 private:
  static uint64_t nanoseconds() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return static_cast<uint64_t>(t.tv_sec) * 1000000000u + static_cast<uint64_t>(t.tv_nsec);
  }
  uint64_t limit_, start_ = 0;
  uint32_t turns_ = 0;
};

// What a task is given as `env`: the layout that TVM's parallel lambdas expect.
struct ParallelEnv {
  void* sync_handle;
  int32_t num_task;
};

// Lives in zeroed memory: zero is the state of every field before start().
class Pool {
 public:
  // `cpus`: `threads` entries or NULL. 0 or the errno of pthread_create; stop() is needed in both cases.
  // Threads that would only take turns on a core are not started, unless `cpus` places them; those do not
  // spin: that would keep the working thread off its core.
  int start(int threads, const int* cpus, uint32_t spin_us) {
    const int usable = cores(threads, cpus);
    threads_ = 1;
    spin_us_ = kIsCounted || (usable < threads && cpus) ? 0 : spin_us;
    linger_us_ = spin_us_ < kLingerUs ? spin_us_ : kLingerUs;
    if (usable < threads && !cpus) threads = usable;
    process_ = getpid();
    caller_cpu_ = cpus ? cpus[0] : -1;
    sigset_t before = block_signals();
    int error = 0;
    for (; threads_ < threads && !error; threads_ += !error) {
      Worker& worker = workers_[threads_];
      worker = {this, threads_, cpus ? cpus[threads_] : -1, {}};
      error = pthread_create(&worker.thread, nullptr, &Pool::enter, &worker);
    }
    sigprocmask(SIG_SETMASK, &before, nullptr);
    return error;
  }

  void stop() {
    if (threads_ < 2 || is_forked()) return;
    quit_.store(1);
    event_.add(1);
    futex_wake_all(&event_);
    for (int i = 1; i < threads_; ++i) pthread_join(workers_[i].thread, nullptr);
    threads_ = 1;
  }

  // The workers belong to a parent process.
  bool is_forked() const { return threads_ > 1 && getpid() != process_; }

  // A run starts: wake the workers now, so that they are there when the first region comes.
  void begin() {
    failures_.set_relaxed(0);
    if (caller_cpu_ >= 0 && sched_getcpu() != caller_cpu_) pin_caller();  // three system calls
    if (threads_ < 2) return;
    active_.store(1);
    announce();
  }

  // The run is over. Workers see the event, and sleep if no run follows. False if any task of the run failed.
  bool end() {
    if (threads_ > 1) {
      active_.store(0);
      event_.add(1);
    }
    if (is_pinned_) sched_setaffinity(0, sizeof caller_mask_, &caller_mask_);
    is_pinned_ = false;
    return !failures_.load();
  }

  // Run f(0 .. tasks - 1) and wait for all of them; tasks <= 0 means one per thread. 0 if every task returned
  // 0.
  int launch(pilite_lambda f, void* cdata, int tasks) {
    if (tasks <= 0) tasks = threads_;
    if (threads_ < 2 || tasks == 1 || is_inside_) return serial(f, cdata, tasks);
    const uint32_t failures = failures_.relaxed();
    const uint32_t epoch = epoch_.relaxed() + 1;
    const int slots = tasks < threads_ ? tasks : threads_;
    is_inside_ = true;
    f_.set_relaxed(f);
    cdata_.set_relaxed(cdata);
    tasks_.set_relaxed(tasks);
    for (int s = slots; s < threads_; ++s) slots_[s].claimed.set_relaxed(epoch);  // nothing in them
    pending_.set_relaxed(static_cast<uint32_t>(slots));
    epoch_.release(epoch);
    announce();
    take_slots(0);
    wait_until_done();
    is_inside_ = false;
    return failures_.load() == failures ? 0 : -1;
  }

  // A region without workers: the tasks in order. `pool` may be NULL (a region inside a task).
  static int serial_on(Pool* pool, pilite_lambda f, void* cdata, int tasks) {
    ParallelEnv env = {nullptr, tasks};
    int failed = 0;
    for (int task = 0; task < tasks; ++task) failed |= f(task, &env, cdata);
    if (failed && pool) pool->failures_.add(1);
    return failed ? -1 : 0;
  }

 private:
  // How long workers spin behind a run: about what a wake-up costs, so that runs one after the other find
  // them awake, and a single run wastes no more than it would have cost.
  static constexpr uint32_t kLingerUs = 50;

#ifdef PILITE_COUNTED
  static constexpr bool kIsCounted = true;
#else
  static constexpr bool kIsCounted = false;
#endif

  struct Worker {
    Pool* pool;
    int id, cpu;
    pthread_t thread;
  };
  struct alignas(64) Slot {
    Atomic<uint32_t> claimed;  // epoch of the last region whose tasks somebody took
  };

  int serial(pilite_lambda f, void* cdata, int tasks) { return serial_on(this, f, cdata, tasks); }

  static int cores(int threads, const int* cpus) {
    cpu_set_t set;
    if (!cpus) return sched_getaffinity(0, sizeof set, &set) ? threads : CPU_COUNT(&set);
    CPU_ZERO(&set);
    for (int i = 0; i < threads; ++i) CPU_SET(cpus[i], &set);
    return CPU_COUNT(&set);
  }

  static constexpr int kCrashes[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP};

  // Workers inherit the mask: the program's signal handlers run in the program's threads. Crashes stay
  // deliverable.
  static sigset_t block_signals() {
    sigset_t blocked, before;
    sigfillset(&blocked);
    for (int crash : kCrashes) sigdelset(&blocked, crash);
    sigprocmask(SIG_BLOCK, &blocked, &before);
    return before;
  }

  static bool pin(int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    return !sched_setaffinity(0, sizeof set, &set);
  }

  // Only for the run: the caller's affinity is not ours. Afterwards the kernel leaves it where it is, as a
  // rule, and the next run asks nothing of it. If the kernel refuses, the run is merely not pinned.
  void pin_caller() {
    if (sched_getaffinity(0, sizeof caller_mask_, &caller_mask_)) return;
    const bool already = CPU_COUNT(&caller_mask_) == 1 && CPU_ISSET(caller_cpu_, &caller_mask_);
    is_pinned_ = !already && pin(caller_cpu_);
  }

  void announce() {
    event_.add(1);
    if (sleepers_.load()) futex_wake_all(&event_);
  }

  static void* enter(void* argument) {
    Worker* worker = static_cast<Worker*>(argument);
    prctl(PR_SET_NAME, "pilite");
    if (worker->cpu >= 0) pin(worker->cpu);
    worker->pool->work(worker->id);
    return nullptr;
  }

  void work(int id) {
    for (uint32_t seen = 0; !quit_.load();) {
      seen = wait_for_event(seen);
      take_slots(id);
    }
  }

  // Spin, for long while a run is active, then sleep. Returns the new event number.
  uint32_t wait_for_event(uint32_t seen) {
    Spinner spinner(active_.relaxed() ? spin_us_ : linger_us_);
    uint32_t now;
    while ((now = event_.acquire()) == seen) {
      if (spinner.again()) continue;
      sleepers_.add(1);
      futex_wait(&event_, seen);  // returns at once if the event came before the sleep
      sleepers_.add(-1u);
    }
    return now;
  }

  // Take every slot of the current region that is still free, `id`'s own first; counted, no other.
  //
  // A late thread may read the job while the caller writes the next one. Then all slots of the epoch that it
  // read are claimed, every exchange below fails, and what it read is not used: a claim can succeed only
  // while its region runs.
  void take_slots(int id) {
    const uint32_t epoch = epoch_.acquire();
    const pilite_lambda f = f_.relaxed();
    void* const cdata = cdata_.relaxed();
    const int tasks = tasks_.relaxed();
    const int slots = tasks < threads_ ? tasks : threads_;
    const int most = kIsCounted ? id < slots : slots;
    for (int k = 0; k < most; ++k) {
      const int s = id < slots ? (id + k) % slots : k;
      if (slots_[s].claimed.relaxed() == epoch || !slots_[s].claimed.exchange(epoch - 1, epoch)) continue;
      ParallelEnv env = {nullptr, tasks};
      for (int task = s; task < tasks; task += slots) {
        if (f(task, &env, cdata)) failures_.add(1);
      }
      if (pending_.add(-1u) == 0 && caller_sleeps_.load()) futex_wake_all(&pending_);
    }
  }

  void wait_until_done() {
    Spinner spinner(spin_us_);
    uint32_t left;
    while ((left = pending_.acquire()) != 0) {
      if (spinner.again()) continue;
      caller_sleeps_.store(1);
      if ((left = pending_.load()) != 0) futex_wait(&pending_, left);
      caller_sleeps_.store(0);
    }
  }

  int threads_, caller_cpu_;
  uint32_t spin_us_, linger_us_;
  pid_t process_;
  bool is_inside_, is_pinned_;
  cpu_set_t caller_mask_;
  Worker workers_[PILITE_MAX_THREADS];

  alignas(64) Atomic<uint32_t> event_;  // begin, launch, end, quit: what workers wait for
  Atomic<uint32_t> active_, quit_;
  alignas(64) Atomic<uint32_t> sleepers_;
  alignas(64) Atomic<uint32_t> pending_;  // slots of the region that are not finished
  Atomic<uint32_t> caller_sleeps_, failures_;
  alignas(64) Atomic<uint32_t> epoch_;  // number of the region; the job below belongs to it
  Atomic<pilite_lambda> f_;
  Atomic<void*> cdata_;
  Atomic<int> tasks_;
  Slot slots_[PILITE_MAX_THREADS];
};

}  // namespace pilite
