// SPDX-License-Identifier: Apache-2.0
// ringdisk check: whether an image's own tables agree with one another, and with -r their repair.
#include <array>
#include <cstdio>

#include "app/image_command_options.h"
#include "app/images.h"
#include "app/json_text.h"
#include "app/long_job.h"
#include "app/program.h"
#include "base/diagnostics.h"

namespace ringdisk {
namespace {

// As qemu-img's manual has them.
constexpr int kExitClean = 0;
constexpr int kExitNotCompleted = 1;
constexpr int kExitCorrupt = 2;
constexpr int kExitLeaks = 3;
constexpr int kExitUnsupported = 63;

constexpr std::array<OptionSpec, 10> kOptions = {{
    kImageFormatOption,
    kOutputOption,
    kQuietOption,
    kProgressFlag,
    kProgressOption,
    {'r', "", "WHAT", "repair: leaks (of clusters) or all"},
    {0, "memory-max", "SIZE", "memory for counting, at least 32M (default: 1G); less takes longer"},
    {'T', "", "CACHE", "cache mode of the image (default: writeback)"},
    kForceShareOption,
    kImageOptsOption,
}};

int exit_status_of(const CheckReport& report) {
  if (report.check_errors != 0) return kExitNotCompleted;
  if (report.corruptions != 0) return kExitCorrupt;
  return report.leaks != 0 ? kExitLeaks : kExitClean;
}

std::string usage_line(const CheckReport& report) {
  auto percent = [](uint64_t part, uint64_t whole) {
    return static_cast<double>(part) * 100.0 / static_cast<double>(whole);
  };
  char line[160];
  snprintf(line, sizeof line,
           "%llu/%llu = %0.2f%% allocated, %0.2f%% fragmented, %0.2f%% compressed clusters\n",
           static_cast<unsigned long long>(report.allocated_clusters),
           static_cast<unsigned long long>(report.total_clusters),
           percent(report.allocated_clusters, report.total_clusters),
           percent(report.fragmented_clusters, report.allocated_clusters),
           percent(report.compressed_clusters, report.allocated_clusters));
  return line;
}

std::string report_as_text(const CheckReport& report) {
  std::string text;
  if (report.corruptions != 0) {
    text += "\n" + std::to_string(report.corruptions) +
            " errors were found on the image.\n"
            "Data may be corrupted, or further writes to the image may corrupt it.\n";
  }
  if (report.leaks != 0) {
    text += "\n" + std::to_string(report.leaks) +
            " leaked clusters were found on the image.\n"
            "This means waste of disk space, but no harm to data.\n";
  }
  if (report.check_errors != 0) {
    text += "\n" + std::to_string(report.check_errors) +
            " internal errors have occurred during the check.\n";
  }
  if (text.empty()) text = "No errors were found on the image.\n";
  if (report.total_clusters != 0 && report.allocated_clusters != 0) text += usage_line(report);
  if (report.image_end_offset != 0) {
    text += "Image end offset: " + std::to_string(report.image_end_offset) + "\n";
  }
  return text;
}

void put_unless_zero(JsonText& json, std::string_view key, uint64_t value) {
  if (value != 0) json.key(key), json.number(value);
}

// Keys in qemu-img's order.
std::string report_as_json(const CheckReport& report, const ImageFile& image) {
  JsonText json;
  json.begin_object();
  put_unless_zero(json, "image-end-offset", report.image_end_offset);
  put_unless_zero(json, "compressed-clusters", report.compressed_clusters);
  put_unless_zero(json, "total-clusters", report.total_clusters);
  put_unless_zero(json, "corruptions", report.corruptions);
  put_unless_zero(json, "corruptions-fixed", report.corruptions_fixed);
  json.key("check-errors"), json.number(report.check_errors);
  put_unless_zero(json, "leaks", report.leaks);
  put_unless_zero(json, "leaks-fixed", report.leaks_fixed);
  put_unless_zero(json, "allocated-clusters", report.allocated_clusters);
  json.key("filename"), json.text(image.name);
  json.key("format"), json.text(image.format);
  put_unless_zero(json, "fragmented-clusters", report.fragmented_clusters);
  json.end_object();
  return json.result() + "\n";
}

std::string repair_as_text(const CheckReport& report) {
  return "The following inconsistencies were found and repaired:\n\n    " +
         std::to_string(report.leaks_fixed) + " leaked clusters\n    " +
         std::to_string(report.corruptions_fixed) +
         " corruptions\n\nDouble checking the fixed image now...\n";
}

void print_messages(Program& program, const std::vector<std::string>& messages) {
  for (const std::string& message : messages) program.console.remark(message + "\n");
}

struct Checked {
  CheckProgress progress;
  std::optional<CheckReport> report;
};

Task<void> check_once(Program& program, ImageFile& image, CheckOptions options, CancelToken cancel,
                      Checked& checked) {
  auto note = [&checked](CheckProgress progress) { checked.progress = progress; };
  checked.report =
      co_await image.admin->check(program.world, *image.storage, options, cancel, note);
}

Task<void> check_watched(Program& program, const Arguments& arguments, ImageFile& image,
                         CheckOptions options, Checked& checked) {
  ProgressOptions form = co_await progress_options(program, arguments, "check");
  form.counts_bytes = false;
  ProgressReporter reporter(
      form, [&] { return checked.progress.done; }, [&] { return checked.progress.total; });
  auto body = [&](CancelToken token) {
    return check_once(program, image, options, token, checked);
  };
  co_await run_long_job(program, reporter, body);
}

// As qemu-img has it, what was found goes to standard error, whatever is asked of the result.
Task<int> print_outcome(Program& program, const ImageFile& image, const CheckReport& report,
                        bool as_json, bool is_quiet) {
  print_messages(program, report.messages);
  const bool is_repaired = report.corruptions_fixed + report.leaks_fixed != 0;
  if (is_repaired && !as_json && !is_quiet) {
    program.console.write(repair_as_text(report));
    // So that it stands before what the second look found.
    co_await program.console.flush();
  }
  print_messages(program, report.second_messages);
  if (report.messages_cut) program.console.remark("(more of the same is not shown)\n");
  if (!is_quiet) {
    program.console.write(as_json ? report_as_json(report, image) : report_as_text(report));
  }
  co_return exit_status_of(report);
}

Result<CheckOptions> check_options(const Arguments& arguments, Diagnostics& diagnostics) {
  CheckOptions options;
  ASSIGN_OR_RETURN(options.memory_max,
                   size_argument(arguments, "memory-max", options.memory_max,
                                 limits::kCheckMemoryMin, kOffsetMax, diagnostics));
  const std::optional<std::string> what = arguments.value("r");
  if (!what) return options;
  if (arguments.has("force-share")) {
    return usage_error(diagnostics, "-r writes to the image, and so cannot be used with -U");
  }
  if (*what == "leaks") {
    options.repair = CheckRepair::kLeaks;
  } else if (*what == "all") {
    options.repair = CheckRepair::kAll;
  } else {
    return usage_error(diagnostics, "-r is leaks or all, not '" + *what + "'");
  }
  return options;
}

Task<int> run(Program& program, const Arguments& arguments) {
  Diagnostics& diagnostics = program.diagnostics();
  std::string word = co_await single_name(arguments, diagnostics);
  bool as_json = co_await wants_json(arguments, diagnostics);
  const CheckOptions options = co_await check_options(arguments, diagnostics);
  ImageName name = co_await source_argument(arguments, word, diagnostics);
  OpenMode mode;
  mode.no_backing = mode.keep_clean = true;
  mode.read_only = options.repair == CheckRepair::kNone;
  mode.share = arguments.has("force-share");
  mode.cache = co_await cache_argument(arguments, "T", CacheMode::kWriteback, diagnostics);
  ImageFile image = co_await open_image_file(program, std::move(name), mode, true);
  Checked checked;
  Result<void> done = co_await check_watched(program, arguments, image, options, checked).result();
  co_await close_after(std::move(done), *image.storage->node);
  if (!checked.report) {
    program.console.remark("ringdisk: " + image.name + ": format '" + image.format +
                           "' does not support checks\n");
    co_return kExitUnsupported;
  }
  int status = co_await print_outcome(program, image, *checked.report, as_json, arguments.has("q"));
  co_return status;
}

}  // namespace

Command check_command() {
  Command command;
  command.name = "check";
  command.summary = "check an image for damage";
  command.synopsis =
      "[-f FMT] [-r leaks|all] [--output=human|json] [-q] [-p] [-T CACHE] [-U]\n"
      "              [--memory-max SIZE] [--image-opts] FILE";
  command.text =
      "Checks that the tables of the image FILE agree with one another. With -r leaks clusters\n"
      "that nothing uses are given back; with -r all whatever can be repaired is, in an order in\n"
      "which the image is no worse if the power fails on the way.\n"
      "Exit status: 0 nothing found, 1 not completed, 2 the image is corrupt, 3 it has leaked\n"
      "clusters (a waste of space, no harm), 63 its format has nothing to check.\n";
  command.examples =
      "  ringdisk check disk.qcow2\n"
      "  ringdisk check --output=json -f qcow2 disk.qcow2\n"
      "  ringdisk check -r all disk.qcow2\n";
  command.options = kOptions;
  command.when_interrupted = "; run it again";
  command.stop_way = StopWay::kCancels;
  command.run = &run;
  return command;
}

}  // namespace ringdisk
