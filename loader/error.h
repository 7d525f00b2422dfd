// error.h - the text of the last failure, one per thread.
//
// It hangs on a pthread key and not on thread_local: a thread_local of a library that was loaded late is
// allocated on its first use in each thread, which would put a malloc into pilite_run.
#pragma once
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "libc.h"
#include "pilite.h"

namespace pilite {

constexpr size_t kErrorBytes = 1024;

struct ThreadKeys {
  pthread_key_t error, pool;  // char[kErrorBytes]; Pool* of the session that runs in this thread
  bool ready;
};
inline ThreadKeys keys = {0, 0, false};  // made by pilite.cc when it is loaded

// This thread's text; without memory or keys a shared one, which is still better than silence.
inline char* error_text(bool create) {
  static char shared[kErrorBytes];
  if (!keys.ready) return shared;
  char* text = static_cast<char*>(pthread_getspecific(keys.error));
  if (text || !create) return text;
  text = static_cast<char*>(calloc(1, kErrorBytes));
  if (!text || !pthread_setspecific(keys.error, text)) return text ? text : shared;
  free(text);
  return shared;
}

// Record one line and hand the status on: `return fail(PILITE_E_IO, "%s: ...", path)`.
__attribute__((format(printf, 2, 3))) inline pilite_status fail(pilite_status status, const char* format,
                                                                ...) {
  char* text = error_text(true);
  va_list values;
  va_start(values, format);
  vsnprintf(text, kErrorBytes, format, values);
  va_end(values);
  for (char* c = text; *c; ++c) {
    if (static_cast<unsigned char>(*c) < ' ') *c = '?';  // a file name may hold a line break
  }
  return status;
}

}  // namespace pilite
