/* fake_model.c - a model made by hand, so that the loader's tests do not need the compiler.
 *
 * Input "command" says what a run does; see the enum. Every mode but FAIL_ENTRY returns 0 from run(). */
#include <stddef.h>
#include <time.h>

#include "pilite_abi.h"

#ifndef NAME
#define NAME "fake"
#endif
#ifndef BUILD_ID
#define BUILD_ID "5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e"
#endif
#ifndef CPU_REQUIRED
#define CPU_REQUIRED 0
#endif
#ifndef ABI_MAJOR
#define ABI_MAJOR PILITE_ABI_MAJOR
#endif
#ifndef MAGIC
#define MAGIC PILITE_MAGIC
#endif
#ifndef NBYTES
#define NBYTES ELEMENTS
#endif
#ifndef ADDEND
#define ADDEND 1
#endif

#ifndef STATE_BYTES
#define STATE_BYTES 0
#endif
#ifndef STRUCT_BYTES
#define STRUCT_BYTES sizeof(pilite_model)
#endif

#define ELEMENTS 1000
#define COUNTERS 256

enum { ADD = 0, FAIL_TASK, FAIL_ENTRY, WAIT, WAIT_ALL, NEST, REMEMBER };

typedef struct {
  void* sync_handle;
  int32_t num_task;
} environment;

typedef struct {
  const int8_t* x;
  const int32_t* command; /* mode, tasks per region (0: one per thread), regions, detail */
  int8_t* y;
  int32_t* counts; /* how often each task ran */
  int32_t* arena;
} job;

static const pilite_host* host;

static int in_range(int task) { return task >= 0 && task < COUNTERS; }

/* Task t of n adds to the elements [t * size, (t + 1) * size). */
static int add(int task, void* env, void* cdata) {
  const job* j = cdata;
  const int n = ((const environment*)env)->num_task, size = (ELEMENTS + n - 1) / n;
  if (!in_range(task) || task >= n) return 1;
  j->counts[task]++;
  for (int i = task * size; i < ELEMENTS && i < (task + 1) * size; ++i) j->y[i] = (int8_t)(j->x[i] + ADDEND);
  return 0;
}

static int fail_one(int task, void* env, void* cdata) {
  const job* j = cdata;
  (void)env;
  return task == j->command[3] ? -1 : 0;
}

static int wait_all(int task, void* env, void* cdata) {
  const job* j = cdata;
  const struct timespec t = {0, j->command[3] * 1000000l};
  (void)task, (void)env;
  return nanosleep(&t, NULL);
}

static int wait(int task, void* env, void* cdata) { return task == 0 ? wait_all(task, env, cdata) : 0; }

static int nest(int task, void* env, void* cdata) {
  (void)env;
  if (task) return 0;
  return host->parallel_launch(add, cdata, ((const job*)cdata)->command[3]);
}

/* The arena is zeroed once, by the loader, and then belongs to the session. */
static int remember(int task, void* env, void* cdata) {
  const job* j = cdata;
  (void)env;
  if (task == 0) j->counts[0] = j->arena[0]++;
  return 0;
}

static const pilite_lambda lambdas[] = {add, fail_one, NULL, wait, wait_all, nest, remember};

static int run(void* arena, void* const* io) {
  job j = {io[0], io[1], io[2], io[3], arena};
  for (int i = 0; i < COUNTERS; ++i) j.counts[i] = 0;
  ((float*)io[4])[0] = (float)j.command[2];
#ifdef ANY_COMMAND /* for random inputs */
  static const int32_t one_region[] = {ADD, 1, 1, 0};
  j.command = one_region;
#endif
#ifdef READ_BEHIND /* the first byte that no alignment excuses */
  j.counts[0] = ((const volatile int8_t*)j.x)[(ELEMENTS + 63) / 64 * 64];
#endif
  if (j.command[0] == FAIL_ENTRY || j.command[0] < ADD || j.command[0] > REMEMBER) return 7;
  for (int i = 0; i < j.command[2]; ++i) host->parallel_launch(lambdas[j.command[0]], &j, j.command[1]);
  return 0;
}

static int bind(const pilite_host* services) {
  host = services;
  return services->size < sizeof(pilite_host) || services->abi >> 16 != PILITE_ABI_MAJOR;
}

static const pilite_tensor inputs[] = {
    {"x", PILITE_INT8, 2, 1, 0, {1, ELEMENTS}, NBYTES, 0.5f, 3},
    {"command", PILITE_INT32, 1, 0, 0, {4}, 16, 0.0f, 0},
};
static const pilite_tensor outputs[] = {
    {"y", PILITE_INT8, 2, 1, 0, {1, ELEMENTS}, ELEMENTS, 0.25f, -7},
    {"counts", PILITE_INT32, 1, 0, 0, {COUNTERS}, 4 * COUNTERS, 0.0f, 0},
    {"regions", PILITE_FLOAT32, 0, 0, 0, {0}, 4, 0.0f, 0},
};
static const pilite_model model = {
    .magic = MAGIC,
    .abi_major = ABI_MAJOR,
    .struct_size = STRUCT_BYTES,
    .name = NAME,
    .build_id = BUILD_ID,
    .target = "any CPU",
    .cpu_required = CPU_REQUIRED,
    .n_inputs = 2,
    .n_outputs = 3,
    .inputs = inputs,
    .outputs = outputs,
    .arena_bytes = 4096,
    .bind = bind,
    .run = run,
    .state_bytes = STATE_BYTES,
};

__attribute__((visibility("default"))) const pilite_model* pilite_model_get(void) { return &model; }
