// classifier MODEL.so PICTURE.ppm... - the five best classes of every picture, by a model that wants uint8 pixels.
// A picture is a binary PPM (P6) of exactly the model's size: `convert in.jpg -resize 224x224! out.ppm`.
#include <algorithm>
#include <cstdio>
#include <exception>
#include <fstream>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "pilite.hpp"

namespace {

// The pixels of a PPM, rows from the top, R G B.
std::vector<uint8_t> read_ppm(const std::string& path, int64_t height, int64_t width) {
  std::ifstream file(path, std::ios::binary);
  std::string magic;
  int64_t w = 0, h = 0, most = 0;
  file >> magic >> w >> h >> most;
  file.get();  // the one blank before the pixels
  if (!file || magic != "P6" || most != 255) throw std::runtime_error(path + ": is no binary PPM with 8 bits");
  if (w != width || h != height) {
    throw std::runtime_error(path + ": has " + std::to_string(w) + "x" + std::to_string(h) + " pixels, the model wants " +
                             std::to_string(width) + "x" + std::to_string(height));
  }
  std::vector<uint8_t> pixels(static_cast<size_t>(w * h * 3));
  file.read(reinterpret_cast<char*>(pixels.data()), static_cast<std::streamsize>(pixels.size()));
  if (!file) throw std::runtime_error(path + ": ends early");
  return pixels;
}

void classify(pilite::Model& model, const std::string& path) {
  const pilite_tensor& input = model.info().inputs[0];
  const auto pixels = read_ppm(path, input.shape[1], input.shape[2]);
  std::copy(pixels.begin(), pixels.end(), model.input<uint8_t>(0).begin());
  model.run();
  const auto scores = model.output<uint8_t>(0);
  std::vector<size_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return scores[a] > scores[b]; });
  std::printf("%s:", path.c_str());
  for (size_t i = 0; i < std::min<size_t>(5, order.size()); ++i) std::printf(" %zu=%d", order[i], scores[order[i]]);
  std::printf("\n");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "classifier MODEL.so PICTURE.ppm...\n");
    return 2;
  }
  try {
    pilite::Model model(argv[1], 1);
    for (int i = 2; i < argc; ++i) classify(model, argv[i]);
  } catch (const std::exception& problem) {
    std::fprintf(stderr, "classifier: %s\n", problem.what());
    return 1;
  }
}
