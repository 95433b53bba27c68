// SPDX-License-Identifier: Apache-2.0
// ringdisk check: whether an image's own tables agree with one another. Reads only.
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

constexpr std::array<OptionSpec, 9> kOptions = {{
    kImageFormatOption,
    kOutputOption,
    kQuietOption,
    kProgressFlag,
    kProgressOption,
    {'r', "", "WHAT", "repairing is not supported yet"},
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

void print_messages(Program& program, const CheckReport& report) {
  for (const std::string& message : report.messages) program.console.remark(message + "\n");
  if (report.messages_cut) program.console.remark("(more of the same is not shown)\n");
}

struct Checked {
  CheckProgress progress;
  std::optional<CheckReport> report;
};

Task<void> check_once(Program& program, ImageFile& image, Checked& checked) {
  auto note = [&checked](CheckProgress progress) { checked.progress = progress; };
  checked.report = co_await image.admin->check(program.world, *image.storage, note);
}

Task<void> check_watched(Program& program, const Arguments& arguments, ImageFile& image,
                         Checked& checked) {
  ProgressOptions options = co_await progress_options(program, arguments, "check");
  options.counts_bytes = false;
  ProgressReporter reporter(
      options, [&] { return checked.progress.done; }, [&] { return checked.progress.total; });
  auto body = [&](CancelToken) { return check_once(program, image, checked); };
  co_await run_long_job(program, reporter, body);
}

int print_outcome(Program& program, const ImageFile& image, const CheckReport& report, bool as_json,
                  bool is_quiet) {
  if (!as_json) print_messages(program, report);
  if (!is_quiet) {
    program.console.write(as_json ? report_as_json(report, image) : report_as_text(report));
  }
  return exit_status_of(report);
}

Task<int> run(Program& program, const Arguments& arguments) {
  Diagnostics& diagnostics = program.diagnostics();
  std::string word = co_await single_name(arguments, diagnostics);
  bool as_json = co_await wants_json(arguments, diagnostics);
  if (arguments.has("r")) {
    co_return diagnostics.explain(Error::of(ErrorKind::kUnsupported, "check"),
                                  "-r (repair) is not supported yet; 'qemu-img check -r' repairs");
  }
  ImageName name = co_await source_argument(arguments, word, diagnostics);
  OpenMode mode;
  mode.read_only = mode.no_backing = mode.keep_clean = true;
  mode.share = arguments.has("force-share");
  mode.cache = co_await cache_argument(arguments, "T", CacheMode::kWriteback, diagnostics);
  ImageFile image = co_await open_image_file(program, std::move(name), mode);
  Checked checked;
  Result<void> done = co_await check_watched(program, arguments, image, checked).result();
  Result<void> closed = co_await image.storage->node->close().result();
  co_await std::move(done);
  co_await std::move(closed);
  if (!checked.report) {
    program.console.remark("ringdisk: " + image.name + ": format '" + image.format +
                           "' does not support checks\n");
    co_return kExitUnsupported;
  }
  co_return print_outcome(program, image, *checked.report, as_json, arguments.has("q"));
}

}  // namespace

Command check_command() {
  Command command;
  command.name = "check";
  command.summary = "check an image for damage";
  command.synopsis = "[-f FMT] [--output=human|json] [-q] [-p] [-T CACHE] [-U] [--image-opts] FILE";
  command.text =
      "Checks that the tables of the image FILE agree with one another. Reads only.\n"
      "Exit status: 0 nothing found, 1 not completed, 2 the image is corrupt, 3 it has leaked\n"
      "clusters (a waste of space, no harm), 63 its format has nothing to check.\n";
  command.examples =
      "  ringdisk check disk.qcow2\n"
      "  ringdisk check --output=json -f qcow2 disk.qcow2\n";
  command.options = kOptions;
  command.when_interrupted = ": the image may be right or damaged";
  command.stop_way = StopWay::kFailsRequests;
  command.run = &run;
  return command;
}

}  // namespace ringdisk
