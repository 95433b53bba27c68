// SPDX-License-Identifier: Apache-2.0
// Which form of progress is wanted, and where it goes.
#include "app/long_job.h"

#include "base/diagnostics.h"

namespace ringdisk {
namespace {

constexpr Duration kSilence = std::chrono::seconds(1);

Result<ProgressForm> form_by_name(const std::string& name, Diagnostics& diagnostics) {
  if (name == "json") return ProgressForm::kJson;
  if (name == "bar") return ProgressForm::kBar;
  if (name == "none") return ProgressForm::kNone;
  return usage_error(diagnostics, "--progress is bar, json or none, not '" + name + "'");
}

}  // namespace

Result<ProgressOptions> progress_options(Program& program, const Arguments& arguments,
                                         std::string_view job) {
  ProgressOptions options;
  options.job = job;
  options.terminal_columns = program.console.columns();
  Console& console = program.console;
  if (arguments.has("q")) return options;
  if (std::optional<std::string> name = arguments.value("progress")) {
    ASSIGN_OR_RETURN(options.form, form_by_name(*name, program.diagnostics()));
  } else if (arguments.has("p")) {
    options.form = console.is_terminal() ? ProgressForm::kBar : ProgressForm::kPercent;
  } else if (console.is_remark_terminal()) {
    options.form = ProgressForm::kBar;
    options.silent_for = kSilence;
  }
  if (options.form == ProgressForm::kBar) {
    options.write = [&console](std::string_view text) { console.remark(text); };
  } else {
    options.write = [&console](std::string_view text) {
      console.write(text);
      // A reader that went away is noticed by the flush at the end.
      Result<void> flushed = console.flush();
      static_cast<void>(flushed.ok());
    };
  }
  return options;
}

Result<uint64_t> rate_argument(const Arguments& arguments, Diagnostics& diagnostics) {
  constexpr uint64_t kRateMax = uint64_t{1} << 62;
  return size_argument(arguments, "r", 0, 1, kRateMax, diagnostics);
}

}  // namespace ringdisk
