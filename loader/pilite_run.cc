// pilite_run.cc - the command line: run one artifact on files or random inputs.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "artifact.h"
#include "npy.h"
#include "pilite.h"

namespace {

using namespace pilite;

constexpr char kHelp[] =
    "pilite-run MODEL.so [options]        run a compiled model\n"
    "  --input FILE     .npy or raw bytes; once per input, in order\n"
    "  --random SEED    fill the inputs from a seed instead (the same numbers on every machine)\n"
    "  --output PREFIX  write output i to PREFIX.<i>.npy\n"
    "  --threads N      threads, the caller included (1)\n"
    "  --cpus 0,1,2,3   pin the threads; one CPU per thread\n"
    "  --runs N         run N times after one warm-up and print the times\n"
    "  --steps N        N runs in a row that keep a model's state; --random draws new inputs for each one;\n"
    "                   outputs go to PREFIX.<step>.<i>.npy, from step 0 on\n"
    "  --reset STEP     forget the state before this step\n"
    "  --bench          run for 3 s or more after a warm-up; median, spread and runs per second\n"
    "  --markers        make one more run between two harmless system calls, for a profiler\n"
    "  --info           print the manifest, of any architecture; nothing is run\n"
    "Exit: 0 done, 1 the run failed, 2 wrong use or refused model.\n";

constexpr int kMaxInputs = 64;
constexpr int kFailed = 1, kWrongUse = 2;
constexpr long kMaxSteps = 1000000, kNever = -1;

struct Arguments {
  const char* model;
  const char* inputs[kMaxInputs];
  int n_inputs;
  const char* output;
  int cpus[PILITE_MAX_THREADS];
  int n_cpus;
  long threads, runs, seed, steps, reset;
  bool info, help, random, markers, bench;
};

bool parse_long(const char* text, long low, long high, long* value) {
  char* end;
  errno = 0;
  *value = text ? strtol(text, &end, 10) : 0;
  return text && *text && !*end && !errno && *value >= low && *value <= high;
}

bool parse_cpus(const char* text, Arguments* a) {
  for (const char* p = text; p; ++p) {
    char* end;
    long cpu = strtol(p, &end, 10);
    if (end == p || cpu < 0 || cpu > 4095 || a->n_cpus == PILITE_MAX_THREADS || (*end && *end != ','))
      return false;
    a->cpus[a->n_cpus++] = static_cast<int>(cpu);
    if (!*end) return true;
    p = end;
  }
  return false;
}

bool parse_input(const char* text, Arguments* a) {
  if (!text || a->n_inputs == kMaxInputs) return false;
  a->inputs[a->n_inputs++] = text;
  return true;
}

// One option and its value; false if the value is missing or wrong, or the option unknown.
bool parse_option(const char* name, const char* value, Arguments* a) {
  if (!strcmp(name, "--input")) return parse_input(value, a);
  if (!strcmp(name, "--output")) return (a->output = value) != nullptr;
  if (!strcmp(name, "--threads")) return parse_long(value, 1, PILITE_MAX_THREADS, &a->threads);
  if (!strcmp(name, "--runs")) return parse_long(value, 1, 10000000, &a->runs);
  if (!strcmp(name, "--steps")) return parse_long(value, 1, kMaxSteps, &a->steps);
  if (!strcmp(name, "--reset")) return parse_long(value, 0, kMaxSteps, &a->reset);
  if (!strcmp(name, "--cpus")) return parse_cpus(value, a);
  if (!strcmp(name, "--random")) return a->random = parse_long(value, 0, 0x7fffffff, &a->seed);
  return false;
}

bool parse(int argc, char** argv, Arguments* a) {
  for (int i = 1; i < argc; ++i) {
    const char* word = argv[i];
    if (!strcmp(word, "--help") || !strcmp(word, "-h")) {
      a->help = true;
    } else if (!strcmp(word, "--info")) {
      a->info = true;
    } else if (!strcmp(word, "--bench")) {
      a->bench = true;
    } else if (!strcmp(word, "--markers")) {
      a->markers = true;
    } else if (word[0] != '-' && !a->model) {
      a->model = word;
    } else if (word[0] != '-' || !parse_option(word, argv[++i < argc ? i : argc], a)) {
      fprintf(stderr, "pilite-run: wrong or incomplete argument: %s; see pilite-run --help\n", word);
      return false;
    }
  }
  if (a->bench && !a->n_inputs) a->random = true;  // what is in the inputs does not matter here
  if (a->n_cpus && a->n_cpus != a->threads) {
    fprintf(stderr, "pilite-run: --cpus names %d CPUs for --threads %ld; give one per thread\n", a->n_cpus,
            a->threads);
    return false;
  }
  if (a->reset != kNever && a->reset >= a->steps) {
    fprintf(stderr, "pilite-run: --reset %ld is no step of --steps %ld; steps count from 0\n", a->reset,
            a->steps);
    return false;
  }
  if (!a->model && !a->help) fprintf(stderr, "pilite-run: no model given; see pilite-run --help\n");
  return a->model || a->help;
}

int failed(int code) {
  fprintf(stderr, "pilite-run: %s\n", pilite_error());
  return code;
}

int print_manifest(const char* path) {
  Artifact artifact;
  if (open_artifact(path, kAnyMachine, true, &artifact)) return failed(kWrongUse);
  size_t n = strlen(artifact.manifest);
  while (n && artifact.manifest[n - 1] == ' ') --n;
  printf("%.*s\n", static_cast<int>(n), artifact.manifest);
  return 0;
}

// splitmix64: the next of a sequence of 64-bit numbers.
uint64_t next_random(uint64_t* state) {
  uint64_t z = *state += 0x9E3779B97F4A7C15u;
  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
  z = (z ^ z >> 27) * 0x94D049BB133111EBu;
  return z ^ z >> 31;
}

// Integers: uniform bytes. float32: k / 2^23 in [-1, 1). bool: 0 or 1.
void fill_random(const pilite_tensor& t, void* data, uint64_t* state) {
  uint8_t* bytes = static_cast<uint8_t*>(data);
  const uint64_t step = t.dtype == PILITE_FLOAT32 ? 4 : 1;
  for (uint64_t i = 0; i < t.nbytes; i += step) {
    const uint64_t word = next_random(state) >> 40;  // 24 bits
    const float real = static_cast<float>(static_cast<int32_t>(word) - (1 << 23)) / (1 << 23);
    if (step == 4) memcpy(bytes + i, &real, 4);
    if (step == 1) bytes[i] = static_cast<uint8_t>(t.dtype == PILITE_BOOL ? word & 1 : word);
  }
}

// From files, or the next numbers of the sequence at *state.
int fill_inputs(const Arguments& a, uint64_t* state, pilite_session* session) {
  const pilite_model& model = *pilite_info(session);
  if (!a.random && static_cast<uint32_t>(a.n_inputs) != model.n_inputs) {
    fprintf(stderr, "pilite-run: %s: has %u inputs, %d given; use --input once per input, or --random SEED\n",
            a.model, model.n_inputs, a.n_inputs);
    return kWrongUse;
  }
  for (uint32_t i = 0; i < model.n_inputs; ++i) {
    if (a.random) fill_random(model.inputs[i], pilite_buffer(session, i), state);
    if (!a.random && read_tensor(a.inputs[i], model.inputs[i], pilite_buffer(session, i)))
      return failed(kWrongUse);
  }
  return 0;
}

double milliseconds() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) * 1e3 + static_cast<double>(t.tv_nsec) * 1e-6;
}

int compare(const void* a, const void* b) {
  const double x = *static_cast<const double*>(a), y = *static_cast<const double*>(b);
  return (x > y) - (x < y);
}

int time_runs(long runs, double load_ms, double first_ms, pilite_session* session) {
  double* samples = static_cast<double*>(malloc(static_cast<size_t>(runs) * sizeof(double)));
  if (!samples) return kFailed;
  for (long i = 0; i < runs; ++i) {
    const double start = milliseconds();
    if (pilite_run(session)) {
      free(samples);
      return failed(kFailed);
    }
    samples[i] = milliseconds() - start;
  }
  qsort(samples, static_cast<size_t>(runs), sizeof(double), compare);
  const double median = (samples[(runs - 1) / 2] + samples[runs / 2]) / 2;
  printf("runs %ld: median %.4f ms, min %.4f ms, first %.4f ms, load %.4f ms\n", runs, median, samples[0],
         first_ms, load_ms);
  free(samples);
  return 0;
}

constexpr double kBenchMs = 3000;
constexpr int kBenchLeast = 10, kBenchMost = 100000;

// The q-th quantile of sorted samples, the nearest one.
double quantile(const double* sorted, int n, double q) { return sorted[static_cast<int>(q * (n - 1) + 0.5)]; }

int bench(const Arguments& a, double load_ms, double first_ms, pilite_session* session) {
  double* samples = static_cast<double*>(malloc(kBenchMost * sizeof(double)));
  if (!samples) return kFailed;
  const double begin = milliseconds();
  int n = 0, code = 0;
  while (!code && n < kBenchMost && (n < kBenchLeast || milliseconds() - begin < kBenchMs)) {
    const double start = milliseconds();
    code = pilite_run(session) ? failed(kFailed) : 0;
    samples[n++] = milliseconds() - start;
  }
  if (!code) {
    qsort(samples, static_cast<size_t>(n), sizeof(double), compare);
    const double median = quantile(samples, n, 0.5);
    printf("bench: %ld threads, %d runs: median %.4f ms, min %.4f, p90 %.4f, p99 %.4f; ", a.threads, n, median,
           samples[0], quantile(samples, n, 0.9), quantile(samples, n, 0.99));
    printf("%.1f runs/s; load %.4f, first %.4f\n", 1e3 / median, load_ms, first_ms);
  }
  free(samples);
  return code;
}

// System calls that the kernel refuses and an emulator's plugin sees: a warm-up follows, what counts follows, end.
enum Mark : long { kWarm = 0x5A0, kStart = 0x5A1, kStop = 0x5A2 };

void mark(Mark which) { syscall(SYS_getpriority, which, 0); }

int run_marked(pilite_session* session) {
  mark(kStart);
  const int code = pilite_run(session);
  mark(kStop);
  return code ? failed(kFailed) : 0;
}

int write_outputs(const char* prefix, pilite_session* session) {
  const pilite_model& model = *pilite_info(session);
  const size_t size = strlen(prefix) + 24;
  char* path = static_cast<char*>(malloc(size));
  int code = path ? 0 : kFailed;
  for (uint32_t i = 0; i < model.n_outputs && !code; ++i) {
    snprintf(path, size, "%s.%u.npy", prefix, i);
    if (write_npy(path, model.outputs[i], pilite_buffer(session, model.n_inputs + i))) code = failed(kFailed);
  }
  free(path);
  return code;
}

int run_steps(const Arguments& a, uint64_t* state, pilite_session* session) {
  char prefix[4096];
  for (long step = 0; step < a.steps; ++step) {
    if (step == a.reset && pilite_reset(session)) return failed(kFailed);
    if (int code = fill_inputs(a, state, session)) return code;
    if (pilite_run(session)) return failed(kFailed);
    if (!a.output) continue;
    snprintf(prefix, sizeof prefix, "%s.%ld", a.output, step);
    if (int code = write_outputs(prefix, session)) return code;
  }
  return 0;
}

void print_tensors(const pilite_model& model) {
  printf("%s for %s, build %.12s\n", model.name, model.target, model.build_id);
  for (uint32_t i = 0; i < model.n_inputs + model.n_outputs; ++i) {
    const bool input = i < model.n_inputs;
    const pilite_tensor& t = input ? model.inputs[i] : model.outputs[i - model.n_inputs];
    char shape[256];
    shape_text(t, shape, sizeof shape);
    printf("%s %u: %s %s %s\n", input ? "input " : "output", input ? i : i - model.n_inputs, t.name,
           kDtypeNames[t.dtype], shape);
  }
}

int run_session(const Arguments& a, double load_ms, pilite_session* session) {
  uint64_t state = static_cast<uint64_t>(a.seed);
  if (a.steps) {
    print_tensors(*pilite_info(session));
    return run_steps(a, &state, session);
  }
  if (int code = fill_inputs(a, &state, session)) return code;
  print_tensors(*pilite_info(session));
  if (a.markers) mark(kWarm);
  const double start = milliseconds();
  if (pilite_run(session)) return failed(kFailed);
  const double first_ms = milliseconds() - start;
  if (a.markers) {
    if (int code = run_marked(session)) return code;
  }
  if (a.runs) {
    if (int code = time_runs(a.runs, load_ms, first_ms, session)) return code;
  }
  if (a.bench) {
    if (int code = bench(a, load_ms, first_ms, session)) return code;
  }
  return a.output ? write_outputs(a.output, session) : 0;
}

int run_model(const Arguments& a) {
  const pilite_options options = {sizeof options, static_cast<uint32_t>(a.threads),
                                  a.n_cpus ? a.cpus : nullptr, 0, 0};
  pilite_session* session;
  const double start = milliseconds();
  if (pilite_open(a.model, &options, &session)) return failed(kWrongUse);
  const int code = run_session(a, milliseconds() - start, session);
  pilite_close(session);
  return code;
}

}  // namespace

int main(int argc, char** argv) {
  Arguments arguments = {};
  arguments.threads = 1;
  arguments.reset = kNever;
  if (!parse(argc, argv, &arguments)) return kWrongUse;
  if (arguments.help) return fputs(kHelp, stdout) < 0;
  return arguments.info ? print_manifest(arguments.model) : run_model(arguments);
}
