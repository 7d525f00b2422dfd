// pilite.cc - the C API: validate, load, run. Needs libc only; built without exceptions and RTTI.
#include "pilite.h"

#include <sys/mman.h>

#include "artifact.h"
#include "cpu.h"
#include "error.h"
#include "pool.h"

using namespace pilite;

// Lives in zeroed memory: zero is the first state of every field.
struct pilite_session {
  Pool pool;
  Atomic<uint32_t> busy;
  void* library;
  const pilite_model* model;
  uint8_t* memory;  // one mapping: the arena, then every tensor's own buffer
  size_t memory_bytes;
  void** io;   // what run() is given: inputs, then outputs
  void** own;  // the session's own buffers in the same order
};

namespace {

// Early, so that a model can be opened from a C++ program's static constructors.
__attribute__((constructor(101))) void make_keys() {
  if (!libc_is_complete()) return;
  keys.ready = !pthread_key_create(&keys.error, free) && !pthread_key_create(&keys.pool, nullptr);
}

constexpr uint64_t kAlign = 64;
constexpr uint64_t kSlack = 64;             // readable bytes behind the arena and every own buffer
constexpr uint64_t kMaxBytes = 1ull << 46;  // of one buffer: keeps every sum below 2^63
constexpr uint32_t kMaxTensors = 4096;
constexpr size_t kBuildIdDigits = 64;
constexpr int kMaxCpus = CPU_SETSIZE;
constexpr uint32_t kMaxOptions = 4096;  // bytes; a larger options.size is a field that was never set
constexpr uint32_t kFirstModelBytes = offsetof(pilite_model, state_bytes);  // of ABI 1.0
constexpr uint8_t kDtypeBytes[] = {1, 1, 2, 4, 8, 4, 1};  // by enum pilite_dtype

uint64_t padded(uint64_t bytes) { return (bytes + kSlack + kAlign - 1) / kAlign * kAlign; }

// 0 for models older than the field.
uint64_t state_bytes(const pilite_model& m) { return m.struct_size < sizeof m ? 0 : m.state_bytes; }

uint32_t tensor_count(const pilite_model& m) { return m.n_inputs + m.n_outputs; }

const pilite_tensor& tensor(const pilite_model& m, uint32_t i) {
  return i < m.n_inputs ? m.inputs[i] : m.outputs[i - m.n_inputs];
}

// ---- services for the model

Pool* current_pool() { return static_cast<Pool*>(pthread_getspecific(keys.pool)); }

// A region that a task opens runs in that task's thread: workers have no current pool.
int parallel_launch(pilite_lambda f, void* cdata, int tasks) {
  Pool* pool = current_pool();
  return pool ? pool->launch(f, cdata, tasks) : Pool::serial_on(nullptr, f, cdata, tasks > 0 ? tasks : 1);
}

const pilite_host kHost = {sizeof(pilite_host), PILITE_ABI_MAJOR << 16 | PILITE_ABI_MINOR, parallel_launch};

// ---- options

pilite_status fail_cpu(int cpu, const cpu_set_t& allowed) {
  char list[128] = "";
  size_t used = 0;
  for (int i = 0; i < kMaxCpus && used < sizeof list - 8; ++i) {
    if (CPU_ISSET(i, &allowed)) used += snprintf(list + used, sizeof list - used, used ? ",%d" : "%d", i);
  }
  return fail(PILITE_E_ARG, "CPU %d is not available to this process; available: %s", cpu, list);
}

pilite_status check_cpus(const pilite_options& o) {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (sched_getaffinity(0, sizeof allowed, &allowed)) {
    return fail(PILITE_E_ARG, "the CPUs of this process cannot be read: %s", strerror(errno));
  }
  for (uint32_t i = 0; i < o.threads; ++i) {
    if (o.cpus[i] < 0 || o.cpus[i] >= kMaxCpus || !CPU_ISSET(o.cpus[i], &allowed))
      return fail_cpu(o.cpus[i], allowed);
  }
  return PILITE_OK;
}

// A caller built against a later header may pass a longer struct: its unknown tail must ask for nothing.
bool has_unknown_options(const pilite_options& o) {
  const uint8_t* p = reinterpret_cast<const uint8_t*>(&o);
  for (uint32_t i = sizeof o; i < o.size; ++i) {
    if (p[i]) return true;
  }
  return false;
}

pilite_status read_options(const pilite_options* given, pilite_options* o) {
  *o = {sizeof *o, 1, nullptr, PILITE_SPIN_DEFAULT_US, 0};
  if (!given) return PILITE_OK;
  if (given->size < sizeof *o || given->size > kMaxOptions) {
    return fail(PILITE_E_ARG, "options.size is %u; it must be sizeof(pilite_options), %zu", given->size,
                sizeof *o);
  }
  if (has_unknown_options(*given) || given->flags & ~uint32_t{PILITE_F_NO_CHECKSUM}) {
    return fail(PILITE_E_ARG, "options ask for something that this loader does not know; update the loader");
  }
  *o = *given;
  if (!o->threads) o->threads = 1;
  if (!o->spin) o->spin = PILITE_SPIN_DEFAULT_US;
  if (o->threads > PILITE_MAX_THREADS) {
    return fail(PILITE_E_ARG, "%u threads asked for; 1 to %d are possible", o->threads, PILITE_MAX_THREADS);
  }
  return o->cpus ? check_cpus(*o) : PILITE_OK;
}

// ---- the descriptor

bool is_sound(const pilite_tensor& t) {
  if (!t.name || t.dtype >= sizeof kDtypeBytes || t.ndim > PILITE_MAX_DIMS) return false;
  uint64_t bytes = kDtypeBytes[t.dtype];
  for (int i = 0; i < t.ndim; ++i) {
    const uint64_t size = static_cast<uint64_t>(t.shape[i]);
    if (t.shape[i] < 1 || size > kMaxBytes / bytes) return false;
    bytes *= size;
  }
  return t.nbytes == bytes;
}

pilite_status check_tensors(const char* path, const pilite_model& m) {
  if (!m.n_inputs || !m.n_outputs || m.n_inputs > kMaxTensors || m.n_outputs > kMaxTensors || !m.inputs ||
      !m.outputs) {
    return fail(PILITE_E_ABI, "%s: the model describes %u inputs and %u outputs", path, m.n_inputs,
                m.n_outputs);
  }
  for (uint32_t i = 0; i < tensor_count(m); ++i) {
    if (!is_sound(tensor(m, i)))
      return fail(PILITE_E_ABI, "%s: the description of tensor %u is not sound", path, i);
  }
  return PILITE_OK;
}

pilite_status check_build_id(const char* path, const pilite_model& m, const char* manifest) {
  size_t length = 0;
  const char* expected = json_string(manifest, "build_id", &length);
  if (!expected || length != kBuildIdDigits)
    return fail(PILITE_E_CORRUPT, "%s: the manifest has no build_id", path);
  if (m.build_id && strlen(m.build_id) == length && !memcmp(m.build_id, expected, length)) return PILITE_OK;
  return fail(
      PILITE_E_LINK,
      "%s: build %.12s was loaded where the manifest says %.12s; if an older model of this name is open, "
      "close it or use another file name",
      path, m.build_id ? m.build_id : "(none)", expected);
}

pilite_status check_cpu(const char* path, const pilite_model& m) {
  char names[512];
  const uint64_t missing = m.cpu_required & ~cpu_features();
  if (!missing) return PILITE_OK;
  return fail(PILITE_E_CPU, "%s: made for %s; this CPU lacks %s; build it for this CPU", path, m.target,
              feature_names(missing, names, sizeof names));
}

pilite_status check_model(const char* path, const pilite_model* m, const char* manifest) {
  if (!m || memcmp(m->magic, PILITE_MAGIC, sizeof m->magic))
    return fail(PILITE_E_ABI, "%s: holds no model descriptor", path);
  if (m->abi_major != PILITE_ABI_MAJOR || m->struct_size < kFirstModelBytes) {
    return fail(PILITE_E_ABI, "%s: the model has ABI %u.%u and this loader %u.%u; build the model again",
                path, m->abi_major, m->abi_minor, PILITE_ABI_MAJOR, PILITE_ABI_MINOR);
  }
  if (!m->name || !m->target || !m->bind || !m->run || m->arena_bytes > kMaxBytes) {
    return fail(PILITE_E_ABI, "%s: the model descriptor is incomplete", path);
  }
  if (state_bytes(*m) > m->arena_bytes) {
    return fail(PILITE_E_ABI, "%s: the model keeps more bytes than its arena has", path);
  }
  pilite_status status = check_build_id(path, *m, manifest);
  if (!status) status = check_tensors(path, *m);
  if (!status) status = check_cpu(path, *m);
  return status;
}

// ---- loading

// By its real path. Not through /proc/self/fd/N: the dynamic linker compares names, and a second model on the
// same descriptor number would silently be the first one.
pilite_status load(const char* path, const struct stat& checked, pilite_session* s) {
  char* real = realpath(path, nullptr);
  if (!real) return fail(PILITE_E_IO, "%s: cannot be opened: %s", path, strerror(errno));
  s->library = dlopen(real, RTLD_NOW | RTLD_LOCAL);
  const bool unchanged = is_unchanged(real, checked);
  free(real);
  if (!s->library) return fail(PILITE_E_LINK, "the dynamic linker refuses the model: %s", dlerror());
  if (!unchanged) {
    return fail(PILITE_E_IO,
                "%s: changed while it was opened; write a new file and rename it over the old one", path);
  }
  pilite_model_get_fn get = reinterpret_cast<pilite_model_get_fn>(dlsym(s->library, "pilite_model_get"));
  if (!get) return fail(PILITE_E_ABI, "%s: does not export pilite_model_get", path);
  s->model = get();
  return PILITE_OK;
}

// Zero-filled by the kernel, paged in on first use.
pilite_status allocate(const char* path, pilite_session* s) {
  const pilite_model& m = *s->model;
  const uint32_t n = tensor_count(m);
  uint64_t bytes = padded(m.arena_bytes);
  for (uint32_t i = 0; i < n; ++i) bytes += padded(tensor(m, i).nbytes);
  s->io = static_cast<void**>(calloc(2 * n, sizeof *s->io));
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory != MAP_FAILED) {
    s->memory = static_cast<uint8_t*>(memory);
    s->memory_bytes = bytes;
  }
  if (!s->io || !s->memory) {
    return fail(PILITE_E_NOMEM, "%s: needs %llu bytes for activations, which this machine does not give",
                path, (unsigned long long)bytes);
  }
  s->own = s->io + n;
  uint8_t* next = s->memory + padded(m.arena_bytes);
  for (uint32_t i = 0; i < n; ++i) {
    s->io[i] = s->own[i] = next;
    next += padded(tensor(m, i).nbytes);
  }
  return PILITE_OK;
}

pilite_status start_pool(const pilite_options& o, pilite_session* s) {
  const int error = s->pool.start(static_cast<int>(o.threads), o.cpus, o.spin);
  return error ? fail(PILITE_E_NOMEM, "%u threads cannot be started: %s", o.threads, strerror(error))
               : PILITE_OK;
}

pilite_status open_session(const char* path, const pilite_options& o, pilite_session* s) {
  Artifact artifact;
  pilite_status status = open_artifact(path, kMachine, !(o.flags & PILITE_F_NO_CHECKSUM), &artifact);
  if (!status) status = load(path, artifact.stat, s);
  if (!status) status = check_model(path, s->model, artifact.manifest);
  if (!status && s->model->bind(&kHost)) {
    status = fail(PILITE_E_ABI, "%s: the model needs a newer loader (this one has ABI %u.%u)", path,
                  PILITE_ABI_MAJOR, PILITE_ABI_MINOR);
  }
  if (!status) status = allocate(path, s);
  if (!status) status = start_pool(o, s);
  return status;
}

pilite_session* new_session() {
  void* memory = nullptr;
  if (posix_memalign(&memory, alignof(pilite_session), sizeof(pilite_session))) return nullptr;
  return static_cast<pilite_session*>(memset(memory, 0, sizeof(pilite_session)));
}

pilite_status run(pilite_session* s) {
  if (s->pool.is_forked())
    return fail(PILITE_E_RUN, "%s: opened before fork(); open it again in the child", s->model->name);
  Pool* const outer = current_pool();
  pthread_setspecific(keys.pool, &s->pool);  // no malloc: glibc keeps the first 32 keys in the thread itself
  s->pool.begin();
  const int code = s->model->run(s->memory, s->io);
  const bool tasks_done = s->pool.end();
  pthread_setspecific(keys.pool, outer);
  if (code) return fail(PILITE_E_RUN, "%s: the model failed with code %d", s->model->name, code);
  return tasks_done ? PILITE_OK
                    : fail(PILITE_E_RUN, "%s: a parallel task of the model failed", s->model->name);
}

pilite_status bind_tensor(pilite_session* s, uint32_t index, void* data, size_t bytes) {
  if (index >= tensor_count(*s->model)) return fail(PILITE_E_ARG, "there is no tensor %u", index);
  const pilite_tensor& t = tensor(*s->model, index);
  if (data && bytes != t.nbytes) {
    return fail(PILITE_E_ARG, "%s: needs %llu bytes, got %zu", t.name, (unsigned long long)t.nbytes, bytes);
  }
  if (reinterpret_cast<uintptr_t>(data) % kAlign)
    return fail(PILITE_E_ARG, "%s: its buffer is not 64-byte aligned", t.name);
  s->io[index] = data ? data : s->own[index];
  return PILITE_OK;
}

// Do `action` as the session's only user of the moment.
template <class Action>
pilite_status exclusively(pilite_session* s, Action action) {
  if (!s) return fail(PILITE_E_ARG, "the session is NULL");
  if (!s->busy.exchange(0, 1)) return fail(PILITE_E_BUSY, "%s: is running in another thread", s->model->name);
  const pilite_status status = action();
  s->busy.store(0);
  return status;
}

}  // namespace

extern "C" {

uint32_t pilite_api_version(void) { return PILITE_API_MAJOR << 16 | PILITE_API_MINOR; }

const char* pilite_error(void) {
  const char* text = error_text(false);
  return text ? text : "";
}

pilite_status pilite_open(const char* path, const pilite_options* options, pilite_session** session) {
  if (session) *session = nullptr;
  if (!path || !session) return fail(PILITE_E_ARG, "pilite_open: path and session must not be NULL");
  if (!keys.ready)
    return fail(PILITE_E_LINK,
                "with glibc before 2.34, link the program with -Wl,--no-as-needed -ldl -lpthread");
  pilite_options checked;
  pilite_status status = read_options(options, &checked);
  if (status) return status;
  pilite_session* s = new_session();
  if (!s) return fail(PILITE_E_NOMEM, "%s: no memory for a session", path);
  status = open_session(path, checked, s);
  if (status) {
    pilite_close(s);
    return status;
  }
  *session = s;
  return PILITE_OK;
}

const pilite_model* pilite_info(const pilite_session* session) { return session ? session->model : nullptr; }

void* pilite_buffer(pilite_session* session, uint32_t index) {
  return session && index < tensor_count(*session->model) ? session->io[index] : nullptr;
}

pilite_status pilite_bind(pilite_session* session, uint32_t index, void* data, size_t bytes) {
  return exclusively(session, [=] { return bind_tensor(session, index, data, bytes); });
}

pilite_status pilite_run(pilite_session* session) {
  return exclusively(session, [=] { return run(session); });
}

pilite_status pilite_reset(pilite_session* session) {
  return exclusively(session, [=] {
    memset(session->memory, 0, state_bytes(*session->model));
    return PILITE_OK;
  });
}

void pilite_close(pilite_session* session) {
  if (!session) return;
  session->pool.stop();
  if (session->memory) munmap(session->memory, session->memory_bytes);
  if (session->library) dlclose(session->library);
  free(session->io);
  free(session);
}

}  // extern "C"
