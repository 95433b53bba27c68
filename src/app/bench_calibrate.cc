// SPDX-License-Identifier: Apache-2.0
// The table as text.
#include "app/bench_calibrate.h"

#include <cstdio>
#include <string>

#include "jobs/calibrate.h"

namespace ringdisk {
namespace {

double microseconds(Duration duration) { return static_cast<double>(duration.count()) / 1e3; }

std::string cipher_line(const CipherCost& cost) {
  char line[160];
  auto kib = [](const CipherCost::Way& way) {
    return static_cast<unsigned long long>(way.in_place_bytes / limits::kKiB);
  };
  snprintf(line, sizeof line,
           "%-32s %-8s reads %6.2f GB/s, in place up to %3llu KiB; writes %6.2f GB/s, %3llu KiB\n",
           cost.cipher.c_str(), cost.kernel.c_str(), 1 / cost.decrypt.ns_per_byte,
           kib(cost.decrypt), 1 / cost.encrypt.ns_per_byte, kib(cost.encrypt));
  return line;
}

std::string crossing_lines(const CrossingCost& cost, size_t shards) {
  if (shards < 2) return "one core: nothing is handed over\n";
  char lines[256];
  snprintf(lines, sizeof lines,
           "a call to another core: %.2f us of many at once, %.2f us alone, %.2f us to one that "
           "sleeps\n",
           microseconds(cost.together), microseconds(cost.single), microseconds(cost.asleep));
  return lines;
}

}  // namespace

Task<void> show_calibration(Program& program, CpuFeatures features) {
  Calibration calibration = co_await calibrate(program.world, features);
  for (const CipherCost& cost : calibration.ciphers) program.console.write(cipher_line(cost));
  program.console.write(crossing_lines(calibration.crossing, program.world.shards.size()));
}

}  // namespace ringdisk
