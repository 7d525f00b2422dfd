// cpu.h - which of the features of pilite_abi.h this CPU and its kernel have, and their names.
#pragma once
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "pilite_abi.h"
#if defined(__aarch64__)
#include <sys/auxv.h>
#elif defined(__x86_64__)
#include <cpuid.h>
#else
#error "pilite runs on aarch64 and x86-64"
#endif

namespace pilite {

struct Feature {
  uint64_t bit;
  const char* name;
};

#if defined(__aarch64__)

constexpr unsigned kMachine = 183;  // EM_AARCH64

// Bits of AT_HWCAP as in the kernel's asm/hwcap.h, written out: old headers lack the newer ones.
constexpr Feature kFeatures[] = {
    {1ull << 0, "fp (floating point)"},
    {1ull << 1, "asimd (NEON)"},
    {1ull << 3, "aes"},
    {1ull << 4, "pmull"},
    {1ull << 7, "crc32"},
    {1ull << 8, "atomics (LSE)"},
    {1ull << 9, "fphp (half precision)"},
    {1ull << 10, "asimdhp (half precision NEON)"},
    {1ull << 12, "asimdrdm (rounding doubling multiply-accumulate)"},
    {1ull << 15, "lrcpc"},
    {1ull << 20, "asimddp (dot product)"},
    {1ull << 22, "sve"},
    {1ull << 23, "asimdfhm"},
};

inline uint64_t cpu_features() { return getauxval(AT_HWCAP); }

#else

constexpr unsigned kMachine = 62;  // EM_X86_64

constexpr Feature kFeatures[] = {
    {PILITE_X86_AVX2, "avx2"},
    {PILITE_X86_FMA, "fma"},
    {PILITE_X86_BMI2, "bmi2"},
    {PILITE_X86_F16C, "f16c"},
    {PILITE_X86_AVX512, "avx512 (F, BW, CD, DQ, VL)"},
    {PILITE_X86_AVX512VNNI, "avx512vnni (8-bit dot product)"},
};

// Register state that the kernel saves: without it the instructions trap even if the CPU has them.
inline uint64_t saved_state() {
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return static_cast<uint64_t>(high) << 32 | low;
}

inline uint64_t cpu_features() {
  uint32_t a, b, d, leaf1_c, leaf7_b, leaf7_c;
  if (!__get_cpuid(1, &a, &b, &leaf1_c, &d)) return 0;
  if (!__get_cpuid_count(7, 0, &a, &leaf7_b, &leaf7_c, &d)) return 0;
  auto has = [](uint32_t word, int bit) { return (word >> bit & 1) != 0; };
  const uint64_t state = has(leaf1_c, 27) ? saved_state() : 0;
  const bool ymm = (state & 0x6) == 0x6 && has(leaf1_c, 28);
  const uint32_t avx512 = 1u << 16 | 1u << 17 | 1u << 28 | 1u << 30 | 1u << 31;
  const bool zmm = ymm && (state & 0xe6) == 0xe6 && (leaf7_b & avx512) == avx512;
  return (has(leaf7_b, 8) ? PILITE_X86_BMI2 : 0) | (ymm && has(leaf7_b, 5) ? PILITE_X86_AVX2 : 0) |
         (ymm && has(leaf1_c, 12) ? PILITE_X86_FMA : 0) | (ymm && has(leaf1_c, 29) ? PILITE_X86_F16C : 0) |
         (zmm ? PILITE_X86_AVX512 : 0) | (zmm && has(leaf7_c, 11) ? PILITE_X86_AVX512VNNI : 0);
}

#endif

// The names of `bits`, separated by commas; a bit that this loader has no name for as its number.
inline const char* feature_names(uint64_t bits, char* text, size_t size) {
  size_t used = 0;
  text[0] = 0;
  for (int i = 0; i < 64 && used < size; ++i) {
    const uint64_t bit = 1ull << i;
    if (!(bits & bit)) continue;
    const char* name = nullptr;
    for (const Feature& feature : kFeatures) {
      if (feature.bit == bit) name = feature.name;
    }
    const char* comma = used ? ", " : "";
    used += name ? snprintf(text + used, size - used, "%s%s", comma, name)
                 : snprintf(text + used, size - used, "%sfeature bit %d", comma, i);
  }
  return text;
}

}  // namespace pilite
