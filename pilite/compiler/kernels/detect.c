// Detection post-processing in float32: boxes from anchors, then non-maximum suppression.
//
//   boxes [n][width]   encoded: y, x, h, w (what follows is not used)     scores [n][columns]
//   anchors [n][4]     y, x, h, w of their centres                        out: see the end of pilite_detect
//
// Compiled without contraction of products and sums, so that every CPU gives the same bytes. Where scores are
// equal, boxes come in their order, and the classes of one box as a heap gives them: that of the C++ library that
// TFLite's wheels are built with.

#include <stdint.h>
#include <string.h>

typedef struct {
  int32_t boxes, width, columns, classes, most, per_box, per_class, regular, later_first;
} Sizes;

typedef struct {
  float y, x, h, w, score, overlap;
} Factors;

typedef struct {
  float y0, x0, y1, x1;
} Box;

// e**x to about one unit in the last place: 2**n * (a polynomial of what is left of x).
static double exponential(double x) {
  if (!(x > -745.0)) return x != x ? x : 0.0;
  if (x > 709.0) return x > 709.782712893384 ? __builtin_inf() : exponential(x - 1.0) * 2.718281828459045;
  const double n = (double)(int)(x * 1.4426950408889634 + (x < 0 ? -0.5 : 0.5));
  const double r = (x - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10;
  double sum = 1.0;
  for (int k = 14; k > 0; --k) sum = 1.0 + sum * r / k;
  const int low = n < -1000 ? 60 : 0;  // a result below the normal numbers takes two steps
  const uint64_t bits = (uint64_t)(1023 + (int)n + low) << 52;
  double power;
  memcpy(&power, &bits, sizeof power);
  return low ? sum * power * 8.673617379884035e-19 : sum * power;
}

static Box decoded(const float* code, const float* anchor, const Factors* f) {
  const float y = (float)((double)code[0] / f->y * anchor[2] + anchor[0]);
  const float x = (float)((double)code[1] / f->x * anchor[3] + anchor[1]);
  const float h = (float)(0.5 * exponential((double)code[2] / f->h) * anchor[2]);
  const float w = (float)(0.5 * exponential((double)code[3] / f->w) * anchor[3]);
  const Box box = {y - h, x - w, y + h, x + w};
  return box;
}

static float larger(float a, float b) { return a < b ? b : a; }
static float smaller(float a, float b) { return b < a ? b : a; }

// Intersection over union; 0 for a box without area.
static float overlap(Box a, Box b) {
  const float area = (a.y1 - a.y0) * (a.x1 - a.x0), other = (b.y1 - b.y0) * (b.x1 - b.x0);
  if (area <= 0 || other <= 0) return 0;
  const float height = larger(smaller(a.y1, b.y1) - larger(a.y0, b.y0), 0);
  const float width = larger(smaller(a.x1, b.x1) - larger(a.x0, b.x0), 0);
  const float both = height * width;
  return both / (area + other - both);
}

// The best boxes by score, each far enough from better ones; returns how many of `limit` were found.
static int suppressed(const Box* boxes, const float* scores, int n, const Factors* f, int limit, char* active,
                      int* chosen) {
  int found = 0;
  for (int i = 0; i < n; ++i) active[i] = scores[i] >= f->score;
  while (found < limit) {
    int best = -1;
    for (int i = 0; i < n; ++i)
      if (active[i] && (best < 0 || scores[i] > scores[best])) best = i;
    if (best < 0) break;
    active[best] = 0;
    chosen[found++] = best;
    for (int i = 0; i < n; ++i)
      if (active[i] && overlap(boxes[best], boxes[i]) > f->overlap) active[i] = 0;
  }
  return found;
}

// A heap of classes with the smallest value on top: `item` sinks from `hole`, then rises to its place.
static void sift(int* heap, const float* values, int hole, int size, int item) {
  const int top = hole;
  int child = hole;
  while (child < (size - 1) / 2) {
    child = 2 * (child + 1);
    if (values[heap[child]] > values[heap[child - 1]]) --child;
    heap[hole] = heap[child];
    hole = child;
  }
  if (size % 2 == 0 && child == (size - 2) / 2) {
    child = 2 * child + 1;
    heap[hole] = heap[child];
    hole = child;
  }
  while (hole > top && values[heap[(hole - 1) / 2]] > values[item]) {
    heap[hole] = heap[(hole - 1) / 2];
    hole = (hole - 1) / 2;
  }
  heap[hole] = item;
}

// order[0 .. most) = the positions of the largest values, falling.
static void largest(const float* values, int n, int most, int* order) {
  for (int i = 0; i < n; ++i) order[i] = i;
  if (most == 1) {
    for (int i = 1; i < n; ++i)
      if (values[i] > values[order[0]]) order[0] = i;
    return;
  }
  for (int parent = most / 2 - 1; parent >= 0; --parent) sift(order, values, parent, most, order[parent]);
  for (int i = most; i < n && most > 0; ++i)
    if (values[order[i]] > values[order[0]]) {
      const int item = order[i];
      order[i] = order[0];
      sift(order, values, 0, most, item);
    }
  for (int last = most - 1; last > 0; --last) {
    const int item = order[last];
    order[last] = order[0];
    sift(order, values, 0, last, item);
  }
}

typedef struct {
  Box* boxes;
  float *column, *values, *held;  // n; n + most; n + most
  int *chosen, *order, *place, *moved;  // n + most, or the classes if there are more
  char* active;
} Room;

static void put(float* out, const Sizes* s, int at, Box box, int class, float score) {
  const int all = s->most * s->per_box;
  memcpy(out + 4 * at, &box, sizeof box);
  out[4 * all + at] = (float)class;
  out[5 * all + at] = score;
}

// One list for all classes; a box counts with its best class.
static int fast(const float* scores, const Sizes* s, const Factors* f, const Room* r, float* out) {
  const int several = s->per_box < s->classes ? s->per_box : s->classes;
  const float* first = scores + s->columns - s->classes;  // a background class comes first
  for (int i = 0; i < s->boxes; ++i) {
    const float* row = first + (long)i * s->columns;
    r->column[i] = row[0];
    for (int k = 1; k < s->classes; ++k)
      if (row[k] > r->column[i]) r->column[i] = row[k];
  }
  const int found = suppressed(r->boxes, r->column, s->boxes, f, s->most, r->active, r->chosen);
  for (int i = 0; i < found; ++i) {
    const float* row = first + (long)r->chosen[i] * s->columns;
    largest(row, s->classes, several, r->order);
    for (int k = 0; k < several; ++k)
      put(out, s, i * s->per_box + k, r->boxes[r->chosen[i]], r->order[k], row[r->order[k]]);
  }
  return found;
}

// One list per class, merged with the best of those before: of equal scores first those of the later class if
// `later_first`, as older kernels of TFLite have it.
static int regular(const float* scores, const Sizes* s, const Factors* f, const Room* r, float* out) {
  int kept = 0;
  for (int k = 0; k < s->classes; ++k) {
    for (int i = 0; i < s->boxes; ++i)
      r->column[i] = scores[(long)i * s->columns + s->columns - s->classes + k];
    const int found = suppressed(r->boxes, r->column, s->boxes, f, s->per_class, r->active, r->chosen);
    const int all = kept + found < s->most ? kept + found : s->most;
    for (int n = 0, old = 0, new = 0; n < all; ++n) {
      const float score = new < found ? r->column[r->chosen[new]] : 0;
      const int later = new < found && (old == kept || score > r->values[old] ||
                                        (s->later_first && score >= r->values[old]));
      r->moved[n] = later ? r->chosen[new] * s->classes + k : r->place[old];
      r->held[n] = later ? score : r->values[old];
      *(later ? &new : &old) += 1;
    }
    kept = all;
    memcpy(r->place, r->moved, (unsigned long)kept * sizeof *r->place);
    memcpy(r->values, r->held, (unsigned long)kept * sizeof *r->values);
  }
  for (int i = 0; i < kept; ++i)
    put(out, s, i, r->boxes[r->place[i] / s->classes], r->place[i] % s->classes, r->values[i]);
  return kept;
}

// out: all boxes, all classes, all scores, the number of detections; what is not used is 0.
__attribute__((visibility("hidden"))) int pilite_detect(const float* boxes, const float* scores,
                                                        const float* anchors, const Sizes* s,
                                                        const Factors* f, char* scratch, float* out) {
  const int all = s->most * s->per_box;
  const long many = s->boxes + s->most > s->classes ? s->boxes + s->most : s->classes;
  Room r;
  r.boxes = (Box*)scratch;
  r.column = (float*)(r.boxes + s->boxes);
  r.values = r.column + many;
  r.held = r.values + many;
  r.chosen = (int*)(r.held + many);
  r.order = r.chosen + many;
  r.place = r.order + many;
  r.moved = r.place + many;
  r.active = (char*)(r.moved + many);
  for (int i = 0; i < s->boxes; ++i)
    r.boxes[i] = decoded(boxes + (long)i * s->width, anchors + 4l * i, f);
  memset(out, 0, (6ul * (unsigned long)all + 1) * sizeof *out);
  out[6 * all] = (float)(s->regular ? regular : fast)(scores, s, f, &r, out);
  return 0;
}
