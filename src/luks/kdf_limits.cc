// SPDX-License-Identifier: Apache-2.0
// Limits out of options.
#include "luks/kdf_limits.h"

#include <limits>
#include <string>

#include "base/diagnostics.h"

namespace ringdisk::luks {
namespace {

constexpr uint64_t kKib = 1024;

// options[key] in units of `unit` bytes; unchanged where it is absent.
template <class Number>
Result<void> take_limit(Options& options, std::string_view key, uint64_t unit, Number& limit,
                        Diagnostics& diagnostics) {
  if (!options.has(key)) return {};
  ASSIGN_OR_RETURN(const uint64_t asked, options.take_size(key, 0, diagnostics));
  if (asked / unit > std::numeric_limits<Number>::max()) {
    return diagnostics.explain(Error::of(ErrorKind::kInvalid, "open"),
                               std::string(key) + " is larger than any header can ask for");
  }
  limit = static_cast<Number>(asked / unit);
  return {};
}

}  // namespace

Result<KdfLimits> take_kdf_limits(Options& options, KdfLimits otherwise, Diagnostics& diagnostics) {
  KdfLimits limits = otherwise;
  RETURN_IF_ERROR(
      take_limit(options, kKdfIterationsMax, 1, limits.pbkdf2_iterations_max, diagnostics));
  RETURN_IF_ERROR(
      take_limit(options, kKdfMemoryMax, kKib, limits.argon2_memory_kib_max, diagnostics));
  RETURN_IF_ERROR(take_limit(options, kKdfWorkMax, kKib, limits.argon2_work_kib_max, diagnostics));
  return limits;
}

}  // namespace ringdisk::luks
