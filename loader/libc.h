// libc.h - the functions that glibc keeps outside libc.so.6 before 2.34.
//
// The shared library is built with PILITE_WEAK_LIBC: it names libc.so.6 alone and takes these from the
// program that loads it. On glibc 2.34 and newer they are always there; before that the program must link
// them with -Wl,--no-as-needed -ldl -lpthread (Python does). pilite_open says so when they are missing.
// Compiled into a program, they are ordinary references.
#pragma once
#include <dlfcn.h>
#include <pthread.h>

#ifdef PILITE_WEAK_LIBC
#pragma weak dlopen
#pragma weak dlsym
#pragma weak dlclose
#pragma weak dlerror
#pragma weak pthread_create
#pragma weak pthread_join
#pragma weak pthread_key_create
#pragma weak pthread_getspecific
#pragma weak pthread_setspecific
#endif

namespace pilite {

inline bool libc_is_complete() {
#ifdef PILITE_WEAK_LIBC
  const void* const needed[] = {(const void*)&dlopen,
                                (const void*)&dlsym,
                                (const void*)&dlclose,
                                (const void*)&dlerror,
                                (const void*)&pthread_create,
                                (const void*)&pthread_join,
                                (const void*)&pthread_key_create,
                                (const void*)&pthread_getspecific,
                                (const void*)&pthread_setspecific};
  for (const void* function : needed) {
    if (!function) return false;
  }
#endif
  return true;
}

}  // namespace pilite
