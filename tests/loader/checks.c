/* checks.c - what only a C program can see. C99, linked with libpilite.so.
 *
 * usage: checks heap MODEL THREADS | busy MODEL | idle MODEL | misuse MODEL */
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "pilite.h"

enum { ADD = 0, WAIT = 3 }; /* modes of fake_model.c */

/* ---- a counting allocator in front of the C library's */

void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);

static long allocations;

static void count(void) { __atomic_add_fetch(&allocations, 1, __ATOMIC_SEQ_CST); }

void* malloc(size_t n) { return count(), __libc_malloc(n); }
void* calloc(size_t n, size_t size) { return count(), __libc_calloc(n, size); }
void* realloc(void* p, size_t n) { return count(), __libc_realloc(p, n); }
void* memalign(size_t align, size_t n) { return count(), __libc_memalign(align, n); }
void* aligned_alloc(size_t align, size_t n) { return memalign(align, n); }
int posix_memalign(void** out, size_t align, size_t n) { return (*out = memalign(align, n)) ? 0 : 12; }

/* ---- */

static pilite_session* open_model(const char* path, uint32_t threads) {
  pilite_options options = {sizeof options, threads, NULL, 0, 0};
  pilite_session* session;
  if (!pilite_open(path, &options, &session)) return session;
  puts(pilite_error());
  exit(3);
}

static void set_command(pilite_session* s, int mode, int tasks, int regions, int detail) {
  int32_t command[] = {mode, tasks, regions, detail};
  memcpy(pilite_buffer(s, 1), command, sizeof command);
}

static void* run_many(void* session) {
  const long before = allocations;
  for (int i = 0; i < 50; ++i) {
    set_command(session, ADD, i % 10, 3, 0);
    if (pilite_run(session)) exit(4);
  }
  return (void*)(allocations - before);
}

static int heap(const char* path, uint32_t threads) {
  pthread_t thread;
  void* in_thread;
  pilite_session* session = open_model(path, threads);
  const long opened = allocations;
  pthread_create(&thread, NULL, run_many, session); /* a thread that libpilite has never seen */
  pthread_join(thread, &in_thread);
  const long in_main = (long)run_many(session);
  printf("counts %d, in a new thread %ld, in the main thread %ld\n", opened > 0, (long)in_thread, in_main);
  pilite_close(session);
  return 0;
}

static void* run_once(void* session) { return (void*)(long)pilite_run(session); }

static int busy(const char* path) {
  pthread_t thread;
  void* first;
  const struct timespec start = {0, 100000000};
  pilite_session* session = open_model(path, 2);
  set_command(session, WAIT, 0, 1, 500);
  pthread_create(&thread, NULL, run_once, session);
  nanosleep(&start, NULL);
  printf("run %d: %s\n", pilite_run(session), pilite_error());
  printf("bind %d\n", pilite_bind(session, 0, NULL, 0));
  pthread_join(thread, &first);
  set_command(session, ADD, 0, 1, 0);
  printf("first %ld, after it %d\n", (long)first, pilite_run(session));
  pilite_close(session);
  return 0;
}

static double cpu_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

/* Workers that may spin for 10 s within a run sleep as soon as it is over. */
static int idle(const char* path) {
  const struct timespec pause = {0, 300000000};
  const pilite_options options = {sizeof options, 2, NULL, 10000000, 0};
  pilite_session* session;
  if (pilite_open(path, &options, &session)) return 3;
  set_command(session, ADD, 0, 1, 0);
  if (pilite_run(session)) return 4;
  const double before = cpu_ms();
  nanosleep(&pause, NULL);
  printf("idle %d\n", cpu_ms() - before < 30);
  pilite_close(session);
  return 0;
}

static void try_open(const char* what, const char* path, const pilite_options* options) {
  pilite_session* session = NULL;
  const int status = pilite_open(path, options, &session);
  printf("%s: %d %s\n", what, status, session ? "open" : pilite_error());
  pilite_close(session);
}

typedef struct {
  pilite_options known;
  uint64_t later;
} longer_options;

static void try_options(const char* path) {
  const int cpus[] = {0, 4000}, negative[] = {-1};
  const longer_options harmless = {{sizeof harmless, 1, NULL, 0, 0}, 0},
                       unknown = {{sizeof unknown, 1, NULL, 0, 0}, 1};
  try_open("no path", NULL, NULL);
  try_open("no size", path, &(pilite_options){0, 1, NULL, 0, 0});
  try_open("65 threads", path, &(pilite_options){sizeof(pilite_options), 65, NULL, 0, 0});
  try_open("64 threads", path, &(pilite_options){sizeof(pilite_options), 64, NULL, 0, 0});
  try_open("0 threads", path, &(pilite_options){sizeof(pilite_options), 0, NULL, 0, 0});
  try_open("unknown flag", path, &(pilite_options){sizeof(pilite_options), 1, NULL, 0, 2});
  try_open("no checksum", path, &(pilite_options){sizeof(pilite_options), 1, NULL, 0, PILITE_F_NO_CHECKSUM});
  try_open("unknown CPU", path, &(pilite_options){sizeof(pilite_options), 2, cpus, 0, 0});
  try_open("negative CPU", path, &(pilite_options){sizeof(pilite_options), 1, negative, 0, 0});
  try_open("later options, zero", path, &harmless.known);
  try_open("later options, set", path, &unknown.known);
}

static int misuse(const char* path) {
  static uint8_t memory[2048];
  uint8_t* aligned = memory + (64 - (uintptr_t)memory % 64);
  printf("error before: [%s]\n", pilite_error());
  try_options(path);
  printf("open without result: %d\n", pilite_open(path, NULL, NULL));
  printf("run NULL: %d, bind NULL: %d\n", pilite_run(NULL), pilite_bind(NULL, 0, NULL, 0));
  printf("info NULL: %d, buffer NULL: %d\n", pilite_info(NULL) == NULL, pilite_buffer(NULL, 0) == NULL);
  pilite_close(NULL);
  pilite_session* session = open_model(path, 1);
  printf("buffer 5: %d\n", pilite_buffer(session, 5) == NULL);
  printf("bind 5: %d %s\n", pilite_bind(session, 5, aligned, 1000), pilite_error());
  printf("bind short: %d %s\n", pilite_bind(session, 0, aligned, 999), pilite_error());
  printf("bind unaligned: %d %s\n", pilite_bind(session, 0, aligned + 1, 1000), pilite_error());
  void* own = pilite_buffer(session, 0);
  printf("bind: %d %d\n", pilite_bind(session, 0, aligned, 1000), pilite_buffer(session, 0) == aligned);
  printf("unbind: %d %d\n", pilite_bind(session, 0, NULL, 0), pilite_buffer(session, 0) == own);
  pilite_close(session);
  return 0;
}

int main(int argc, char** argv) {
  if (argc == 4 && !strcmp(argv[1], "heap")) return heap(argv[2], (uint32_t)atoi(argv[3]));
  if (argc == 3 && !strcmp(argv[1], "busy")) return busy(argv[2]);
  if (argc == 3 && !strcmp(argv[1], "idle")) return idle(argv[2]);
  if (argc == 3 && !strcmp(argv[1], "misuse")) return misuse(argv[2]);
  return 2;
}
