// SPDX-License-Identifier: Apache-2.0
// ringdisk measure: how large a new image would become.
#include "jobs/measure.h"

#include <array>

#include "app/create_image.h"
#include "app/image_command_options.h"
#include "app/images.h"
#include "app/json_text.h"
#include "app/program.h"
#include "base/diagnostics.h"

namespace ringdisk {
namespace {

constexpr std::array<OptionSpec, 8> kOptions = {{
    {'O', "target-format", "FMT", "format of the new image (default: raw)"},
    {'o', "", "OPTIONS", "options of that format, a=b,c=d; '-o help' lists them"},
    {'s', "size", "SIZE", "of a new, empty image of SIZE bytes"},
    kImageFormatOption,
    kSnapshotOption,
    kOutputOption,
    kForceShareOption,
    kImageOptsOption,
}};

struct Request {
  FormatAdmin* admin = nullptr;
  Options options;                  // of the new image
  std::optional<ImageName> source;  // nullopt: an empty image of `size`
  ByteCount size;
  bool share = false;
  bool as_json = false;
};

Result<void> check_source_options(const Arguments& arguments, Diagnostics& diagnostics) {
  const size_t names = arguments.names().size();
  const bool has_size = arguments.has("size");
  if (names > 1) return usage_error(diagnostics, "expecting one image file name at the most");
  if (names == 0) {
    for (const OptionSpec& option : {kImageFormatOption, kSnapshotOption, kImageOptsOption}) {
      if (!arguments.has(option.key())) continue;
      return usage_error(diagnostics, "-f, -l and --image-opts need an image file name");
    }
  }
  if (has_size != (names == 1)) return {};
  return usage_error(diagnostics, has_size ? "--size and an image file name exclude each other"
                                           : "expecting --size or an image file name");
}

Result<Request> read_request(Program& program, const Arguments& arguments) {
  Diagnostics& diagnostics = program.diagnostics();
  RETURN_IF_ERROR(check_source_options(arguments, diagnostics));
  Request request;
  ASSIGN_OR_RETURN(request.as_json, wants_json(arguments, diagnostics));
  request.share = arguments.has("force-share");
  ASSIGN_OR_RETURN(const uint64_t size,
                   size_argument(arguments, "size", 0, 0, kOffsetMax, diagnostics));
  request.size = ByteCount(size);
  const std::string format = arguments.value("target-format").value_or("raw");
  ASSIGN_OR_RETURN(request.admin, program.find_admin(format));
  ASSIGN_OR_RETURN(request.options,
                   new_image_options(arguments.values("o"), "new image", diagnostics));
  request.options.take("size");  // as create has it: the size beside the options is what counts
  if (!arguments.names().empty()) {
    ASSIGN_OR_RETURN(request.source,
                     source_argument(arguments, arguments.names().front(), diagnostics));
    request.source->snapshot = arguments.value("snapshot").value_or("");
  }
  return request;
}

Task<std::optional<std::vector<BitmapDescription>>> bitmaps_of(DeviceNode& source) {
  Result<std::vector<BitmapDescription>> listed = co_await source.format().bitmaps().result();
  std::optional<std::vector<BitmapDescription>> bitmaps;
  if (listed.ok()) {
    bitmaps = std::move(listed).value();
  } else if (listed.error().kind != ErrorKind::kUnsupported) {
    co_return listed.error();
  }
  co_return std::move(bitmaps);
}

Task<ByteCount> count_content(Program& program, DeviceNode& source, ByteCount block_size) {
  MeasureJob job(program.world, source, block_size);
  co_return co_await job.run(program.stop.token()).result();
}

Task<void> measure_source(Program& program, const Request& request, DeviceNode& source,
                          MeasureReport& report) {
  MeasureRequest asked;
  asked.size = source.size();
  asked.options = request.options;
  asked.bitmaps = co_await bitmaps_of(source);
  asked.count_content = [&program, &source](ByteCount block_size) {
    return count_content(program, source, block_size);
  };
  report = co_await request.admin->measure(program.world, std::move(asked));
}

Task<MeasureReport> measure_empty(Program& program, const Request& request) {
  MeasureRequest asked;
  asked.size = request.size;
  asked.options = request.options;
  co_return co_await request.admin->measure(program.world, std::move(asked)).result();
}

Task<MeasureReport> measure(Program& program, Request& request) {
  if (!request.source) co_return co_await measure_empty(program, request).result();
  OpenMode mode;
  mode.read_only = mode.keep_clean = true;
  mode.share = request.share;
  MeasureReport report;
  auto body = [&](DeviceNode& source) { return measure_source(program, request, source, report); };
  co_await with_device(program, std::move(*request.source), mode, body);
  co_return report;
}

std::string report_as_json(const MeasureReport& report) {
  JsonText json;
  json.begin_object();
  if (report.bitmaps) json.key("bitmaps"), json.number(report.bitmaps->value());
  json.key("required"), json.number(report.required.value());
  json.key("fully-allocated"), json.number(report.fully_allocated.value());
  json.end_object();
  return json.result() + "\n";
}

std::string report_as_text(const MeasureReport& report) {
  std::string text = "required size: " + std::to_string(report.required.value()) + "\n" +
                     "fully allocated size: " + std::to_string(report.fully_allocated.value()) +
                     "\n";
  if (report.bitmaps) text += "bitmaps size: " + std::to_string(report.bitmaps->value()) + "\n";
  return text;
}

Task<int> run(Program& program, const Arguments& arguments) {
  const bool was_help = co_await print_option_help(program, arguments, "target-format");
  if (was_help) co_return 0;
  Request request = co_await read_request(program, arguments);
  const MeasureReport report = co_await measure(program, request);
  program.console.write(request.as_json ? report_as_json(report) : report_as_text(report));
  co_return 0;
}

}  // namespace

Command measure_command() {
  Command command;
  command.name = "measure";
  command.summary = "tell how large a new image would become";
  command.synopsis =
      "[-O FMT] [-o OPTIONS] [--output=human|json] (--size=SIZE | [-f FMT] [-l SNAPSHOT] [-U]\n"
      "       [--image-opts] FILE)";
  command.text =
      "Tells how many bytes the file of a new image needs at the most: of an empty one of SIZE\n"
      "bytes, or of one that FILE is converted to. The first number is what it needs with that\n"
      "content, the second with content everywhere, the third what persistent bitmaps need\n"
      "besides. Mappings are looked at on all cores; no data is read, and new images need no\n"
      "secret.\n";
  command.examples =
      "  ringdisk measure -O qcow2 --size=100G\n"
      "  ringdisk measure -O qcow2 -o cluster_size=128k --output=json disk.raw\n";
  command.options = kOptions;
  command.stop_way = StopWay::kFailsRequests;
  command.run = &run;
  return command;
}

}  // namespace ringdisk
