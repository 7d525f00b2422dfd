// pilite.hpp - the C API for C++17: sessions that close themselves, failures as exceptions, typed buffers.
//
//   pilite::Model model("model.so", 4);
//   auto x = model.input<int8_t>(0);
//   std::copy(pixels.begin(), pixels.end(), x.begin());
//   model.run();
//   int8_t best = model.output<int8_t>(0)[0];
#ifndef PILITE_HPP
#define PILITE_HPP
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "pilite.h"

namespace pilite {

class Error : public std::runtime_error {
 public:
  explicit Error(pilite_status status) : Error(status, pilite_error()) {}
  Error(pilite_status status, const std::string& text) : std::runtime_error(text), status_(status) {}
  pilite_status status() const noexcept { return status_; }

 private:
  pilite_status status_;
};

// The elements of one tensor; owned by the session or by whoever bound the buffer.
template <class T>
class View {
 public:
  View(T* data, std::size_t size) noexcept : data_(data), size_(size) {}
  T* data() const noexcept { return data_; }
  std::size_t size() const noexcept { return size_; }
  T* begin() const noexcept { return data_; }
  T* end() const noexcept { return data_ + size_; }
  T& operator[](std::size_t i) const noexcept { return data_[i]; }

 private:
  T* data_;
  std::size_t size_;
};

// The pilite_dtype of an element type; -1: no tensor has it.
template <class T>
inline constexpr int dtype_of = -1;
template <>
inline constexpr int dtype_of<std::int8_t> = PILITE_INT8;
template <>
inline constexpr int dtype_of<std::uint8_t> = PILITE_UINT8;
template <>
inline constexpr int dtype_of<std::int16_t> = PILITE_INT16;
template <>
inline constexpr int dtype_of<std::int32_t> = PILITE_INT32;
template <>
inline constexpr int dtype_of<std::int64_t> = PILITE_INT64;
template <>
inline constexpr int dtype_of<float> = PILITE_FLOAT32;
template <>
inline constexpr int dtype_of<bool> = PILITE_BOOL;

// One session. Movable; one caller at a time. Every member but the destructor may throw Error.
class Model {
 public:
  // `cpus` is empty or has one CPU number per thread.
  explicit Model(const std::string& path, unsigned threads = 1, const std::vector<int>& cpus = {}) {
    if (!cpus.empty() && cpus.size() != threads) {
      throw Error(PILITE_E_ARG, path + ": cpus must be empty or hold one CPU number per thread");
    }
    pilite_options options = {};
    options.size = sizeof options;
    options.threads = threads;
    options.cpus = cpus.empty() ? nullptr : cpus.data();
    pilite_session* session = nullptr;
    check(pilite_open(path.c_str(), &options, &session));
    session_.reset(session);
  }

  const pilite_model& info() const { return *pilite_info(session_.get()); }

  // Throws Error(ARG) if there is no such tensor or T is not its type.
  template <class T>
  View<T> input(std::uint32_t i) const {
    if (i >= info().n_inputs) throw Error(PILITE_E_ARG, "there is no input " + std::to_string(i));
    return view<T>(info().inputs[i], i);
  }
  template <class T>
  View<T> output(std::uint32_t i) const {
    if (i >= info().n_outputs) throw Error(PILITE_E_ARG, "there is no output " + std::to_string(i));
    return view<T>(info().outputs[i], info().n_inputs + i);
  }

  // Let an input or output live in the caller's 64-byte aligned memory; see pilite_bind.
  void bind_input(std::uint32_t i, void* data, std::size_t bytes) {
    check(pilite_bind(session_.get(), i, data, bytes));
  }
  void bind_output(std::uint32_t i, void* data, std::size_t bytes) {
    check(pilite_bind(session_.get(), info().n_inputs + i, data, bytes));
  }

  void run() { check(pilite_run(session_.get())); }

  // Forget what the model kept between runs; see pilite_reset.
  void reset() { check(pilite_reset(session_.get())); }

 private:
  struct Close {
    void operator()(pilite_session* session) const noexcept { pilite_close(session); }
  };

  static void check(pilite_status status) {
    if (status != PILITE_OK) throw Error(status);
  }

  template <class T>
  View<T> view(const pilite_tensor& tensor, std::uint32_t index) const {
    static_assert(dtype_of<T> >= 0, "no tensor has this element type");
    if (tensor.dtype != dtype_of<T>) {
      throw Error(PILITE_E_ARG, std::string(tensor.name) + ": is not of the element type asked for");
    }
    return {static_cast<T*>(pilite_buffer(session_.get(), index)),
            static_cast<std::size_t>(tensor.nbytes / sizeof(T))};
  }

  std::unique_ptr<pilite_session, Close> session_;
};

}  // namespace pilite
#endif
