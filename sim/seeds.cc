// SPDX-License-Identifier: Apache-2.0
// Reading the environment, and the one variable that must outlive a crash.
#include "sim/seeds.h"

#include <atomic>
#include <charconv>
#include <cstdlib>
#include <optional>
#include <string_view>

namespace ringdisk::sim {
namespace {

// A failed CHECK ends the process from any depth; only what is reachable from a signal handler can
// still be printed.
constinit std::atomic<uint64_t> newest_seed{0};

std::optional<uint64_t> number_in_environment(const char* name) {
  const char* text = std::getenv(name);
  if (!text) return std::nullopt;
  std::string_view view(text);
  uint64_t number = 0;
  auto [end, error] = std::from_chars(view.data(), view.data() + view.size(), number);
  if (error != std::errc() || end != view.data() + view.size()) return std::nullopt;
  return number;
}

}  // namespace

uint64_t seed_or(uint64_t otherwise) {
  return number_in_environment("RINGDISK_SEED").value_or(otherwise);
}
bool is_seed_given() { return number_in_environment("RINGDISK_SEED").has_value(); }
uint64_t seed_factor() { return number_in_environment("RINGDISK_SEED_FACTOR").value_or(1); }

void note_seed(uint64_t seed) { newest_seed.store(seed, std::memory_order_relaxed); }
uint64_t noted_seed() { return newest_seed.load(std::memory_order_relaxed); }

}  // namespace ringdisk::sim
