/* stub_model.c - the smallest model: y = x + ADDEND over eight int8 elements; TRAP 1 makes it crash, PAD bytes big. */
#include "pilite_abi.h"

#define ELEMENTS 8

#if PAD
__attribute__((used, retain)) static const unsigned char padding[PAD] = {1};
#endif

static int bind(const pilite_host* host) { return host->abi >> 16 != PILITE_ABI_MAJOR; }

static int run(void* arena, void* const* io) {
  const int8_t* x = io[0];
  int8_t* y = io[1];
  (void)arena;
#if TRAP
  __builtin_trap();
#endif
  for (int i = 0; i < ELEMENTS; ++i) y[i] = (int8_t)(x[i] + ADDEND);
  return 0;
}

static const pilite_tensor input = {"x", PILITE_INT8, 2, 1, 0, {1, ELEMENTS}, ELEMENTS, 0.5f, 3};
static const pilite_tensor output = {"y", PILITE_INT8, 2, 1, 0, {1, ELEMENTS}, ELEMENTS, 0.5f, 3};
static const pilite_model model = {
    .magic = PILITE_MAGIC,
    .abi_major = PILITE_ABI_MAJOR,
    .struct_size = sizeof(pilite_model),
    .name = "stub",
    .build_id = BUILD_ID,
    .target = TARGET,
    .cpu_required = CPU_REQUIRED,
    .n_inputs = 1,
    .n_outputs = 1,
    .inputs = &input,
    .outputs = &output,
    .arena_bytes = 64,
    .bind = bind,
    .run = run,
};

__attribute__((visibility("default"))) const pilite_model* pilite_model_get(void) { return &model; }
