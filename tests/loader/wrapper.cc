// wrapper.cc - a program that uses pilite.hpp only. usage: wrapper MODEL
#include <algorithm>
#include <iostream>
#include <utility>

#include "pilite.hpp"

template <class Action>
void expect_error(const char* what, Action action) {
  try {
    action();
    std::cout << what << ": no error\n";
  } catch (const pilite::Error& error) {
    std::cout << what << ": " << error.status() << " " << error.what() << "\n";
  }
}

int main(int, char** argv) {
  pilite::Model first(argv[1], 2);
  pilite::Model model = std::move(first);
  auto x = model.input<std::int8_t>(0);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<std::int8_t>(i % 100);
  const std::int32_t command[] = {0, 0, 1, 0};
  std::copy(std::begin(command), std::end(command), model.input<std::int32_t>(1).begin());
  alignas(64) static std::int8_t y[1000];
  model.bind_output(0, y, sizeof y);
  model.run();
  std::cout << model.info().name << " " << int(y[0]) << " " << int(y[99]) << " " << model.output<float>(2)[0]
            << "\n";
  expect_error("missing", [] { pilite::Model("/nowhere/model.so"); });
  expect_error("type", [&] { model.input<float>(0); });
  expect_error("index", [&] { model.output<float>(3); });
  expect_error("cpus", [&] { pilite::Model(argv[1], 2, {0}); });
  return 0;
}
