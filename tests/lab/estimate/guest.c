/* guest.c - a program without a C library for the profiler's tests; the numbers in it are what the tests expect. */
enum { kWarm = 0x5A0, kStart = 0x5A1, kStop = 0x5A2, kSection = 0x5A3 };

static volatile char data[64 << 10];

static void call(long number, long a, long b) {
  register long x8 __asm__("x8") = number;
  register long x0 __asm__("x0") = a;
  register long x1 __asm__("x1") = b;
  __asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1) : "memory");
}

static void mark(long which, long label) { call(141, which, label); }

/* 2 instructions a turn. */
static void spin(long turns) {
  __asm__ volatile("1: subs %0, %0, #1\n b.ne 1b" : "+r"(turns) : : "cc");
}

/* One store to every line of `data`. */
static void touch(void) {
  for (long i = 0; i < (long)sizeof data; i += 64) data[i] = 1;
}

void _start(void) {
  spin(50000);
#ifndef NO_MARKS
  mark(kWarm, 0);
  touch();
  mark(kStart, 0);
  spin(1000);
  mark(kSection, 7);
  touch();
  mark(kStop, 0);
  mark(kStart, 0);
  spin(3000);
  mark(kStop, 0);
#endif
  call(94, 0, 0); /* exit_group */
}
