// SPDX-License-Identifier: Apache-2.0
// ringdisk info: what an image says of itself. Opens no other file than the one named, unless
// --backing-chain asks for it; then each next one passes the gate, as every opening does.
#include <array>

#include "app/image_command_options.h"
#include "app/images.h"
#include "app/info_text.h"
#include "app/program.h"
#include "base/diagnostics.h"
#include "base/limits.h"
#include "block/open_gate.h"

namespace ringdisk {
namespace {

constexpr std::array<OptionSpec, 5> kOptions = {{
    kImageFormatOption,
    kOutputOption,
    {0, "backing-chain", "", "describe the backing images too"},
    kForceShareOption,
    kImageOptsOption,
}};

Task<ImageReport> report_on(Program& program, ImageName name, OpenMode mode) {
  ImageFile image = co_await open_image_file(program, std::move(name), mode, true);
  ImageReport report;
  report.filename = image.name;
  report.format = image.format;
  Result<ImageDescription> described = co_await describe_image(program, image).result();
  Result<ByteCount> allocated = co_await image.storage->node->allocated_size().result();
  if (allocated.ok()) report.disk_size = allocated.value();
  report.description = co_await close_after(std::move(described), *image.storage->node);
  if (!report.description.backing_name.empty()) {
    const std::string& named = report.description.backing_name;
    const bool is_path = !has_protocol_prefix(named);
    report.full_backing_name = is_path ? path_beside(image.filename, named) : named;
  }
  co_return std::move(report);
}

Task<std::vector<ImageReport>> report_on_chain(Program& program, ImageName name, OpenMode mode,
                                               bool whole_chain) {
  std::vector<ImageReport> reports;
  for (;;) {
    ImageReport report = co_await report_on(program, std::move(name), mode);
    const bool is_last = !whole_chain || report.description.backing_name.empty();
    reports.push_back(std::move(report));
    if (is_last) co_return std::move(reports);
    if (reports.size() > limits::kBackingDepthMax) {
      co_return program.diagnostics().explain(
          Error::of(ErrorKind::kLimit, "open"),
          reports.front().filename + ": the backing chain is longer than " +
              std::to_string(limits::kBackingDepthMax) + " images, or leads back to itself");
    }
    const ImageReport& last = reports.back();
    name = co_await backing_image(program, last.filename, last.description);
  }
}

std::string chain_as_text(const std::vector<ImageReport>& reports) {
  std::string text;
  for (const ImageReport& report : reports) {
    if (!text.empty()) text += "\n";
    text += info_as_text(report);
  }
  return text;
}

std::string chain_as_json(const std::vector<ImageReport>& reports, bool whole_chain) {
  JsonText json;
  if (whole_chain) json.begin_array();
  for (const ImageReport& report : reports) info_as_json(report, json);
  if (whole_chain) json.end_array();
  return json.result() + "\n";
}

Task<int> run(Program& program, const Arguments& arguments) {
  Diagnostics& diagnostics = program.diagnostics();
  std::string word = co_await single_name(arguments, diagnostics);
  bool as_json = co_await wants_json(arguments, diagnostics);
  ImageName name = co_await source_argument(arguments, word, diagnostics);
  OpenMode mode;
  mode.read_only = mode.no_backing = mode.keep_clean = true;
  mode.share = arguments.has("force-share");
  const bool whole_chain = arguments.has("backing-chain");
  std::vector<ImageReport> reports =
      co_await report_on_chain(program, std::move(name), mode, whole_chain);
  program.console.write(as_json ? chain_as_json(reports, whole_chain) : chain_as_text(reports));
  co_return 0;
}

}  // namespace

Command info_command() {
  Command command;
  command.name = "info";
  command.summary = "describe an image";
  command.synopsis = "[-f FMT] [--output=human|json] [--backing-chain] [-U] [--image-opts] FILE";
  command.text =
      "Prints the format, sizes and features of the image FILE. Opens no other file, whatever the\n"
      "image names, unless --backing-chain is given.\n";
  command.examples =
      "  ringdisk info disk.qcow2\n"
      "  ringdisk info --output=json --backing-chain overlay.qcow2\n";
  command.options = kOptions;
  command.one_shard = true;
  command.stop_way = StopWay::kFailsRequests;
  command.run = &run;
  return command;
}

}  // namespace ringdisk
