/* pilite_abi.h - the contract between a compiled model (.so) and the loader. C99, no dependencies.
 *
 * File: [ELF .so][canonical JSON manifest, padded with blanks to 8][pilite_footer, 64 bytes]
 * Rule: the major version must match; a minor version only appends fields. `struct_size` and `size` tell what exists.
 * ABI.md has the whole of it. */
#ifndef PILITE_ABI_H
#define PILITE_ABI_H
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

#define PILITE_ABI_MAJOR 1u
#define PILITE_ABI_MINOR 1u
#define PILITE_MAGIC "PILITE01"            /* 8 bytes, no terminator: footer and descriptor */
#define PILITE_MAX_DIMS 8

enum pilite_dtype { PILITE_INT8 = 0, PILITE_UINT8 = 1, PILITE_INT16 = 2, PILITE_INT32 = 3, PILITE_INT64 = 4, PILITE_FLOAT32 = 5, PILITE_BOOL = 6 };

/* CPU features that the code uses. aarch64: AT_HWCAP bits. x86-64: the bits below. */
#define PILITE_X86_AVX2 (1ull << 0)
#define PILITE_X86_FMA (1ull << 1)
#define PILITE_X86_BMI2 (1ull << 2)
#define PILITE_X86_F16C (1ull << 3)
#define PILITE_X86_AVX512 (1ull << 4)      /* F, BW, CD, DQ, VL together: x86-64-v4 */
#define PILITE_X86_AVX512VNNI (1ull << 5)

typedef struct {
  const char* name;
  uint8_t dtype, ndim;                     /* enum pilite_dtype; 0 to PILITE_MAX_DIMS */
  uint16_t quantized;                      /* 1: scale and zero_point are meaningful */
  uint32_t reserved;
  int64_t shape[PILITE_MAX_DIMS];
  uint64_t nbytes;
  float scale;
  int32_t zero_point;
} pilite_tensor;

/* One task of a parallel region. `env` points to {void*, int32_t num_task}; 0 = done. */
typedef int (*pilite_lambda)(int task_id, void* env, void* cdata);

/* Services that the loader gives to the model; grows only at the end. */
typedef struct {
  uint32_t size, abi;                      /* abi = major << 16 | minor */
  int (*parallel_launch)(pilite_lambda, void* cdata, int num_task); /* num_task 0: one task per thread */
} pilite_host;

typedef struct {
  char magic[8];
  uint32_t abi_major, abi_minor;
  uint32_t struct_size, flags;
  const char* name;
  const char* build_id;                    /* 64 hex digits; equals the manifest's */
  const char* target;                      /* "aarch64-linux-gnu cortex-a72" */
  uint64_t cpu_required;                   /* feature bits, see above */
  uint32_t n_inputs, n_outputs;
  const pilite_tensor* inputs;
  const pilite_tensor* outputs;
  uint64_t arena_bytes;                    /* zero-filled, 64-byte aligned, given to every run */
  uint64_t weights_bytes;
  int (*bind)(const pilite_host*);         /* once per load; 0 = accepted */
  /* io = inputs then outputs, 64-byte aligned, no byte beyond each is touched; 0 = done */
  int (*run)(void* arena, void* const* io);
  /* Since 1.1: the first bytes of the arena, kept between runs; all zero is the initial state. */
  uint64_t state_bytes;
} pilite_model;

/* What the host of ABI 1.0 has. A model asks for this much, whatever was appended since; see ABI.md. */
#define PILITE_HOST_BYTES_1_0 (offsetof(pilite_host, parallel_launch) + sizeof(void*))

typedef const pilite_model* (*pilite_model_get_fn)(void); /* the one exported symbol: pilite_model_get */

typedef struct {
  char magic[8];
  uint32_t format, elf_machine;            /* format 1 */
  uint64_t elf_bytes, json_bytes;
  uint64_t content_hash;                   /* xxh64, seed 0, of everything before the footer */
  uint32_t abi_major, abi_minor;
  uint64_t footer_hash;                    /* xxh64 of the 48 bytes before this field */
  uint64_t reserved;                       /* 0 */
} pilite_footer;

#ifdef __cplusplus
}
static_assert(sizeof(pilite_footer) == 64, "the footer is 64 bytes");
#endif
#endif
