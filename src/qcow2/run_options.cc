// SPDX-License-Identifier: Apache-2.0
// Reading them.
#include "qcow2/run_options.h"

#include <algorithm>
#include <array>

#include "base/diagnostics.h"
#include "base/limits.h"

namespace ringdisk::qcow2 {
namespace {

constexpr uint64_t kSliceMemoryMax = 256 * limits::kMiB;
constexpr std::array<std::string_view, 4> kTemplates = {"none", "constant", "cached", "all"};
constexpr std::array<std::string_view, 9> kChecks = {
    "main-header",    "active-l1",   "active-l2",   "refcount-table",  "refcount-block",
    "snapshot-table", "inactive-l1", "inactive-l2", "bitmap-directory"};

Error refuse(Diagnostics& diagnostics, std::string why) {
  return diagnostics.explain(Error::of(ErrorKind::kInvalid, "open"), std::move(why));
}

Result<uint64_t> take_slice_memory(Options& options, Diagnostics& diagnostics) {
  for (const char* key : {"refcount-cache-size", "l2-cache-entry-size", "cache-clean-interval"}) {
    RETURN_IF_ERROR(options.take_size(key, 0, diagnostics));
  }
  ASSIGN_OR_RETURN(const uint64_t all,
                   options.take_size("cache-size", kSliceMemoryMax, diagnostics));
  return options.take_size("l2-cache-size", all, diagnostics);
}

Result<void> take_overlap_check(Options& options, Diagnostics& diagnostics) {
  Options checks = options.take_group("overlap-check");
  const std::optional<std::string> whole = options.take("overlap-check");
  const std::optional<std::string> named = checks.take("template");
  if (whole && named && *whole != *named) {
    return refuse(diagnostics, "overlap-check and overlap-check.template say two things, '" +
                                   *whole + "' and '" + *named + "'");
  }
  const std::string kind = whole.value_or(named.value_or("all"));
  if (std::find(kTemplates.begin(), kTemplates.end(), kind) == kTemplates.end()) {
    return refuse(diagnostics,
                  "overlap-check is none, constant, cached or all, not '" + kind + "'");
  }
  for (std::string_view check : kChecks) {
    RETURN_IF_ERROR(checks.take_bool(check, true, diagnostics));
  }
  if (checks.empty()) return {};
  return refuse(diagnostics,
                "qcow2 has no option 'overlap-check." + checks.values().begin()->first + "'");
}

}  // namespace

Result<RunOptions> take_run_options(Options& options, const Header& header,
                                    Diagnostics& diagnostics) {
  RunOptions run;
  ASSIGN_OR_RETURN(run.slice_memory_max, take_slice_memory(options, diagnostics));
  const bool is_version_3 = header.version >= 3;
  const bool is_recorded =
      is_version_3 && (header.compatible_features & kCompatibleLazyRefcounts) != 0;
  ASSIGN_OR_RETURN(run.is_lazy, options.take_bool("lazy-refcounts", is_recorded, diagnostics));
  if (run.is_lazy && !is_version_3) {
    return refuse(diagnostics,
                  "lazy-refcounts=on needs an image of version 3; 'ringdisk amend "
                  "-o compat=1.1' makes it one");
  }
  ASSIGN_OR_RETURN(run.gives_space_back,
                   options.take_bool("pass-discard-request", true, diagnostics));
  for (const char* key : {"pass-discard-snapshot", "pass-discard-other"}) {
    RETURN_IF_ERROR(options.take_bool(key, false, diagnostics));
  }
  RETURN_IF_ERROR(take_overlap_check(options, diagnostics));
  return run;
}

}  // namespace ringdisk::qcow2
