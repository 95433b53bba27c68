// SPDX-License-Identifier: Apache-2.0
// ringdisk compact: the file of an image made shorter where it is, by moving what lies at its end
// into its holes.
#include <array>

#include "app/image_command_options.h"
#include "app/images.h"
#include "app/json_text.h"
#include "app/long_job.h"
#include "app/program.h"
#include "base/diagnostics.h"

namespace ringdisk {
namespace {

constexpr std::array<OptionSpec, 6> kOptions = {{
    kImageFormatOption,
    kOutputOption,
    kQuietOption,
    kProgressFlag,
    kProgressOption,
    kImageOptsOption,
}};

struct Compaction {
  CompactProgress progress;
  CompactReport report;
};

Task<void> compact_once(Program& program, ImageFile& image, CancelToken cancel,
                        Compaction& compaction) {
  Graph graph = program.graph();
  CompactRequest request;
  request.options = std::move(image.options);
  request.cancel = cancel;
  request.on_progress = [&compaction](CompactProgress progress) { compaction.progress = progress; };
  compaction.report =
      co_await image.admin->compact(graph, std::move(image.storage), std::move(request));
}

Task<void> compact_watched(Program& program, const Arguments& arguments, ImageFile& image,
                           Compaction& compaction) {
  ProgressOptions form = co_await progress_options(program, arguments, "compact");
  form.counts_bytes = false;
  ProgressReporter reporter(
      form, [&] { return compaction.progress.done; }, [&] { return compaction.progress.total; });
  auto body = [&](CancelToken token) { return compact_once(program, image, token, compaction); };
  co_await run_long_job(program, reporter, body);
}

uint64_t bytes_cut(const CompactReport& report) {
  return report.bytes_before - std::min(report.bytes_before, report.bytes_after);
}

std::string report_as_text(const CompactReport& report) {
  std::string text = "Cut " + std::to_string(bytes_cut(report)) + " bytes: was " +
                     std::to_string(report.bytes_before) + ", now " +
                     std::to_string(report.bytes_after) + ".\n";
  for (const std::string& obstacle : report.obstacles) text += "Stays: " + obstacle + ".\n";
  return text;
}

std::string report_as_json(const CompactReport& report, const std::string& name) {
  JsonText json;
  json.begin_object();
  json.key("filename"), json.text(name);
  json.key("bytes-before"), json.number(report.bytes_before);
  json.key("bytes-after"), json.number(report.bytes_after);
  json.key("bytes-moved"), json.number(report.bytes_moved);
  json.key("obstacles"), json.begin_array();
  for (const std::string& obstacle : report.obstacles) json.text(obstacle);
  json.end_array();
  json.end_object();
  return json.result() + "\n";
}

Task<int> run(Program& program, const Arguments& arguments) {
  Diagnostics& diagnostics = program.diagnostics();
  std::string word = co_await single_name(arguments, diagnostics);
  const bool as_json = co_await wants_json(arguments, diagnostics);
  ImageName name = co_await source_argument(arguments, word, diagnostics);
  OpenMode mode;
  mode.no_backing = mode.keep_clean = true;
  ImageFile image = co_await open_image_file(program, std::move(name), mode);
  Compaction compaction;
  co_await compact_watched(program, arguments, image, compaction);
  const CompactReport& report = compaction.report;
  if (!arguments.has("q")) {
    program.console.write(as_json ? report_as_json(report, image.name) : report_as_text(report));
  }
  if (report.is_cancelled) co_return Error::of(ErrorKind::kCancelled, "compact");
  co_return 0;
}

}  // namespace

Command compact_command() {
  Command command;
  command.name = "compact";
  command.summary = "make an image's file shorter where it is";
  command.synopsis =
      "[-f FMT] [--output=human|json] [-q] [-p] [--progress=FORM] [--image-opts] FILE";
  command.text =
      "Moves what lies at the end of the image FILE, which no other program may be using, into "
      "its\n"
      "holes (what discards, zeroes and deleted snapshots have left), and cuts the file. The disk\n"
      "and its snapshots stay what they are. If the power fails, or a signal ends it, the image "
      "is\n"
      "whole, and what was gained stays gained. What cannot be moved is named; the file ends "
      "behind\n"
      "it. The content of an encrypted image is enciphered anew where it is moved to, so a "
      "passphrase\n"
      "is needed.\n";
  command.examples =
      "  ringdisk compact -p disk.qcow2\n"
      "  ringdisk compact --output=json disk.qcow2\n"
      "  ringdisk compact --key-file=key disk.qcow2\n";
  command.options = kOptions;
  command.when_interrupted = ": the image is whole; run it again to gain the rest";
  command.run = &run;
  return command;
}

}  // namespace ringdisk
