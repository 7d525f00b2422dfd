// npy.h - read and write numpy's .npy files, format 1.0, C order, the data types of pilite_abi.h.
#pragma once
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"

namespace pilite {

// By enum pilite_dtype.
constexpr const char* kNpyTypes[] = {"|i1", "|u1", "<i2", "<i4", "<i8", "<f4", "|b1"};
constexpr const char* kDtypeNames[] = {"int8", "uint8", "int16", "int32", "int64", "float32", "bool"};

// "(1, 224, 224, 3)"; "(5,)" for one dimension, "()" for none: Python's way.
inline void shape_text(const pilite_tensor& t, char* text, size_t size) {
  size_t used = snprintf(text, size, "(");
  for (int i = 0; i < t.ndim && used < size; ++i) {
    used += snprintf(text + used, size - used, i ? ", %lld" : "%lld", (long long)t.shape[i]);
  }
  if (used < size) snprintf(text + used, size - used, t.ndim == 1 ? ",)" : ")");
}

constexpr size_t kNpyHeader = 10;  // magic, version, length of the dictionary
constexpr size_t kNpyText = 512;

inline size_t npy_dictionary(const pilite_tensor& t, char* text) {
  char shape[256];
  shape_text(t, shape, sizeof shape);
  int n = snprintf(text, kNpyText, "{'descr': '%s', 'fortran_order': False, 'shape': %s, }",
                   kNpyTypes[t.dtype], shape);
  size_t length = static_cast<size_t>(n);
  while ((kNpyHeader + length + 1) % 64) text[length++] = ' ';
  text[length++] = '\n';
  return length;
}

inline pilite_status write_npy(const char* path, const pilite_tensor& t, const void* data) {
  char text[kNpyText + 64];
  const size_t n = npy_dictionary(t, text);
  const char header[kNpyHeader] = {
      '\x93', 'N', 'U', 'M', 'P', 'Y', 1, 0, static_cast<char>(n & 255), static_cast<char>(n >> 8)};
  FILE* file = fopen(path, "wb");
  if (!file) return fail(PILITE_E_IO, "%s: cannot be written: %s", path, strerror(errno));
  bool done = fwrite(header, 1, sizeof header, file) == sizeof header && fwrite(text, 1, n, file) == n &&
              fwrite(data, 1, t.nbytes, file) == t.nbytes;
  done = !fclose(file) && done;
  return done ? PILITE_OK : fail(PILITE_E_IO, "%s: cannot be written: %s", path, strerror(errno));
}

// The value behind 'key': in the dictionary, blanks removed, up to a top-level comma or the closing brace.
inline bool npy_value(const char* text, const char* key, char* value, size_t size) {
  const char* p = strstr(text, key);
  if (!p) return false;
  p = strchr(p, ':');
  size_t used = 0;
  for (int depth = 0; p && *++p && used + 1 < size && *p != '}' && (depth || *p != ',');) {
    depth += (*p == '(') - (*p == ')');
    if (*p != ' ') value[used++] = *p;
  }
  value[used] = 0;
  return used != 0;
}

inline void remove_blanks(char* text) {
  char* to = text;
  for (const char* from = text; *from; ++from) {
    if (*from != ' ') *to++ = *from;
  }
  *to = 0;
}

inline pilite_status check_npy(const char* path, const pilite_tensor& t, const char* text) {
  char descr[64] = "", order[16] = "", shape[256] = "", expected_descr[16], expected_shape[256];
  npy_value(text, "'descr'", descr, sizeof descr);
  npy_value(text, "'fortran_order'", order, sizeof order);
  npy_value(text, "'shape'", shape, sizeof shape);
  snprintf(expected_descr, sizeof expected_descr, "'%s'", kNpyTypes[t.dtype]);
  shape_text(t, expected_shape, sizeof expected_shape);
  if (!strcmp(order, "True"))
    return fail(PILITE_E_ARG, "%s: is in Fortran order; save numpy.ascontiguousarray of it", path);
  char wanted[256];
  snprintf(wanted, sizeof wanted, "%s", expected_shape);
  remove_blanks(wanted);
  if (strcmp(descr, expected_descr) || strcmp(shape, wanted)) {
    return fail(PILITE_E_ARG, "%s: has type %s and shape %s; %s needs %s (%s) and %s", path, descr, shape,
                t.name, expected_descr, kDtypeNames[t.dtype], expected_shape);
  }
  return PILITE_OK;
}

inline pilite_status read_npy_header(const char* path, FILE* file, const pilite_tensor& t) {
  unsigned char header[kNpyHeader];
  if (fread(header, 1, sizeof header, file) != sizeof header || header[6] != 1) {
    return fail(PILITE_E_ARG, "%s: not an .npy file of format 1.0", path);
  }
  const size_t n = header[8] | header[9] << 8;
  char* text = static_cast<char*>(calloc(1, n + 1));
  if (!text) return fail(PILITE_E_NOMEM, "%s: no memory", path);
  const pilite_status status =
      fread(text, 1, n, file) == n ? check_npy(path, t, text) : fail(PILITE_E_ARG, "%s: is truncated", path);
  free(text);
  return status;
}

// An .npy file of the tensor's type and shape, or exactly its raw bytes.
inline pilite_status read_tensor(const char* path, const pilite_tensor& t, void* data) {
  FILE* file = fopen(path, "rb");
  if (!file) return fail(PILITE_E_IO, "%s: cannot be opened: %s", path, strerror(errno));
  char magic[6] = {};
  const bool npy =
      fread(magic, 1, sizeof magic, file) == sizeof magic && !memcmp(magic, "\x93NUMPY", sizeof magic);
  rewind(file);
  pilite_status status = npy ? read_npy_header(path, file, t) : PILITE_OK;
  if (!status && (fread(data, 1, t.nbytes, file) != t.nbytes || fgetc(file) != EOF)) {
    status = fail(PILITE_E_ARG, "%s: does not hold exactly the %llu bytes of %s", path,
                  (unsigned long long)t.nbytes, t.name);
  }
  fclose(file);
  return status;
}

}  // namespace pilite
