/* pilite.h - load and run compiled models. Plain C99; link with -lpilite or compile pilite.cc into the
 * program.
 *
 *   pilite_session* session;
 *   if (pilite_open("model.so", NULL, &session)) return fail(pilite_error());
 *   memcpy(pilite_buffer(session, 0), pixels, pilite_info(session)->inputs[0].nbytes);
 *   if (pilite_run(session)) return fail(pilite_error());
 *   const int8_t* scores = pilite_buffer(session, pilite_info(session)->n_inputs);
 *   pilite_close(session);
 *
 * Threads: different sessions are independent. One session has one caller at a time: a second pilite_run at
 * the same moment gives PILITE_E_BUSY, and pilite_close must not overlap with pilite_run.
 *
 * fork(): worker threads do not survive it. In the child, a session of the parent with more than one thread
 * refuses to run (PILITE_E_RUN); open the model again there. */
#ifndef PILITE_H
#define PILITE_H
#include <stddef.h>
#include <stdint.h>

#include "pilite_abi.h"
#ifdef __cplusplus
extern "C" {
#endif

#define PILITE_API __attribute__((visibility("default")))
#define PILITE_API_MAJOR 1u
#define PILITE_API_MINOR 1u
#define PILITE_MAX_THREADS 64
#define PILITE_SPIN_DEFAULT_US 100

typedef enum {
  PILITE_OK = 0,
  PILITE_E_IO,      /* the file cannot be read, is no regular file, or changed while it was opened */
  PILITE_E_CORRUPT, /* not a pilite artifact, truncated or damaged */
  PILITE_E_ARCH,    /* made for another processor architecture */
  PILITE_E_ABI,     /* made for a newer or older loader, or its descriptor breaks the contract */
  PILITE_E_CPU,     /* needs instructions that this CPU does not have */
  PILITE_E_LINK,    /* the dynamic linker refused it */
  PILITE_E_ARG,     /* a wrong argument to one of these functions */
  PILITE_E_NOMEM,   /* out of memory */
  PILITE_E_RUN,     /* the model or one of its parallel tasks reported a failure */
  PILITE_E_BUSY     /* the session is running in another thread */
} pilite_status;

enum pilite_flags {
  /* Do not hash the whole file: opens faster, finds less damage. Everything else is still checked. */
  PILITE_F_NO_CHECKSUM = 1
};

/* Zero is the default of every field but `size`. */
typedef struct {
  uint32_t size;    /* sizeof(pilite_options): lets later versions append fields */
  uint32_t threads; /* 1 to PILITE_MAX_THREADS, the caller included; 0 = 1. Without `cpus` no more are used
                       than the process may use CPUs: the others would only take turns */
  const int* cpus;  /* `threads` CPU numbers or NULL. A caller elsewhere is moved to cpus[0] and held there,
                       during pilite_run only */
  uint32_t spin;    /* microseconds that an idle thread spins within a run before it sleeps; 0 = default.
                       Behind a run at most 50 */
  uint32_t flags;   /* enum pilite_flags */
} pilite_options;

typedef struct pilite_session pilite_session;

/* Major << 16 | minor of this library. The major number changes when a caller must be compiled again. */
PILITE_API uint32_t pilite_api_version(void);

/* Validate the artifact at `path`, load it and make a session. `options` may be NULL. *session is NULL on
 * failure. Nothing of the file is executed before its footer, sizes and checksum are right. Never overwrite a
 * model in place: write a new file and rename it. Status: any but RUN and BUSY. */
PILITE_API pilite_status pilite_open(const char* path, const pilite_options* options,
                                     pilite_session** session);

/* The model's descriptor: names, shapes, quantization, arena size. Valid until pilite_close. */
PILITE_API const pilite_model* pilite_info(const pilite_session* session);

/* The buffer of tensor `index`: inputs from 0, then outputs from n_inputs. 64-byte aligned, zero at first,
 * valid until pilite_close, or the caller's own after pilite_bind. NULL if there is no such tensor. */
PILITE_API void* pilite_buffer(pilite_session* session, uint32_t index);

/* Let tensor `index` live in the caller's memory: no copy. `data` must be 64-byte aligned, `bytes` exactly
 * the tensor's nbytes (the model never touches a byte beyond them), and stay valid until it is bound again or
 * the session is closed. Buffers must not overlap. data NULL and bytes 0: back to the session's own buffer.
 * Status: OK, ARG, BUSY. */
PILITE_API pilite_status pilite_bind(pilite_session* session, uint32_t index, void* data, size_t bytes);

/* Compute the outputs from the inputs, in the calling thread and the session's workers, which sleep soon
 * after it. A successful run allocates no memory. On RUN the outputs are undefined. Status: OK, ARG, RUN,
 * BUSY. */
PILITE_API pilite_status pilite_run(pilite_session* session);

/* Forget what the model kept between runs: the next run is like the first one. Most models keep nothing.
 * Since API 1.1. Status: OK, ARG, BUSY. */
PILITE_API pilite_status pilite_reset(pilite_session* session);

/* Stop the workers and free everything. NULL is allowed. Must not overlap with pilite_run. */
PILITE_API void pilite_close(pilite_session* session);

/* One line that describes the calling thread's last failure; "" if there was none. Valid until the next
 * failure. */
PILITE_API const char* pilite_error(void);

#ifdef __cplusplus
}
#endif
#endif
