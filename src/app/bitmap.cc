// SPDX-License-Identifier: Apache-2.0
// ringdisk bitmap: adds, removes and changes the persistent bitmaps of an image.
#include <array>

#include "app/image_command_options.h"
#include "app/images.h"
#include "app/program.h"
#include "base/diagnostics.h"

namespace ringdisk {
namespace {

constexpr std::string_view kMergeKey = "merge";

constexpr std::array<OptionSpec, 11> kOptions = {{
    {0, "add", "", "add a bitmap that records changes from now on"},
    {0, "remove", "", "remove it, in whatever state it is"},
    {0, "clear", "", "forget all changes recorded so far"},
    {0, "enable", "", "record changes"},
    {0, "disable", "", "stop recording"},
    {0, kMergeKey, "SOURCE", "add what the bitmap SOURCE has recorded (repeatable)"},
    {'g', "granularity", "SIZE", "with --add: bytes of the disk that a bit stands for"},
    {'b', "source-file", "FILE", "with --merge: the image that SOURCE is in"},
    {'F', "source-format", "FMT", "format of the source file"},
    kImageFormatOption,
    kImageOptsOption,
}};

struct BitmapRequest {
  ImageName image;
  std::optional<ImageName> source;
  std::vector<BitmapEdit> edits;
};

std::optional<BitmapEdit::Action> action_of(std::string_view key) {
  using Action = BitmapEdit::Action;
  constexpr std::pair<std::string_view, Action> kActions[] = {
      {"add", Action::kAdd},       {"remove", Action::kRemove},   {"clear", Action::kClear},
      {"enable", Action::kEnable}, {"disable", Action::kDisable}, {kMergeKey, Action::kMerge},
  };
  for (const auto& [name, action] : kActions) {
    if (name == key) return action;
  }
  return std::nullopt;
}

// In the order in which they stand on the command line.
Result<std::vector<BitmapEdit>> edits_asked_for(const Arguments& arguments,
                                                const std::string& bitmap,
                                                Diagnostics& diagnostics) {
  std::vector<BitmapEdit> edits;
  for (const auto& [key, value] : arguments.in_order()) {
    const std::optional<BitmapEdit::Action> action = action_of(key);
    if (!action) continue;
    BitmapEdit edit;
    edit.action = *action;
    edit.bitmap = bitmap;
    if (edit.action == BitmapEdit::Action::kMerge) edit.source = value;
    edits.push_back(std::move(edit));
  }
  if (edits.empty()) {
    return usage_error(diagnostics,
                       "need at least one of --add, --remove, --clear, --enable, --disable, or "
                       "--merge");
  }
  return edits;
}

Result<void> read_granularity(const Arguments& arguments, BitmapRequest& request,
                              Diagnostics& diagnostics) {
  if (!arguments.has("granularity")) return {};
  if (!arguments.has("add")) {
    return usage_error(diagnostics, "granularity only supported with --add");
  }
  constexpr uint64_t kGranularityMin = 512, kGranularityMax = uint64_t{1} << 31;
  ASSIGN_OR_RETURN(uint64_t granularity, size_argument(arguments, "granularity", 0, kGranularityMin,
                                                       kGranularityMax, diagnostics));
  for (BitmapEdit& edit : request.edits) edit.granularity = granularity;
  return {};
}

Result<BitmapRequest> read_arguments(const Arguments& arguments, Diagnostics& diagnostics) {
  if (arguments.names().size() != 2) {
    return usage_error(diagnostics, "expecting an image file name and a bitmap name");
  }
  BitmapRequest request;
  ASSIGN_OR_RETURN(request.image,
                   source_argument(arguments, arguments.names().front(), diagnostics));
  ASSIGN_OR_RETURN(request.edits, edits_asked_for(arguments, arguments.names()[1], diagnostics));
  RETURN_IF_ERROR(read_granularity(arguments, request, diagnostics));
  const std::optional<std::string> file = arguments.value("source-file");
  if (file && !arguments.has(kMergeKey)) {
    return usage_error(diagnostics, "a source file goes with --merge alone");
  }
  if (!file && arguments.has("source-format")) {
    return usage_error(diagnostics, "-F goes with a source file (-b)");
  }
  if (!file) return request;
  ASSIGN_OR_RETURN(request.source,
                   parse_image_name(*file, arguments.value("source-format"), false, diagnostics));
  return request;
}

Task<void> read_sources(DeviceNode& source, std::vector<BitmapEdit>& edits) {
  for (BitmapEdit& edit : edits) {
    if (edit.action != BitmapEdit::Action::kMerge) continue;
    edit.source_bits = co_await source.format().find_bitmap(edit.source);
  }
}

Task<void> open_and_read_sources(Program& program, BitmapRequest& request) {
  OpenMode mode;
  mode.read_only = mode.no_backing = mode.keep_clean = true;
  Graph graph = program.graph();
  std::shared_ptr<DeviceNode> source = co_await graph.open(*request.source, mode);
  Result<void> read = co_await read_sources(*source, request.edits).result();
  if (!read.ok()) read = at_node(read.error(), source->id());
  co_await close_after(std::move(read), *source);
}

Task<int> run(Program& program, const Arguments& arguments) {
  BitmapRequest request = co_await read_arguments(arguments, program.diagnostics());
  if (request.source) co_await open_and_read_sources(program, request);
  OpenMode mode;
  mode.no_backing = true;
  ImageFile image = co_await open_image_file(program, std::move(request.image), mode);
  Graph graph = program.graph();
  co_await image.admin->edit_bitmaps(graph, std::move(image.storage), std::move(request.edits));
  co_return 0;
}

}  // namespace

Command bitmap_command() {
  Command command;
  command.name = "bitmap";
  command.summary = "add, remove or change persistent dirty bitmaps";
  command.synopsis =
      "(--add [-g SIZE] | --remove | --clear | --enable | --disable |\n"
      "                --merge SOURCE [-b FILE [-F FMT]])... [-f FMT] [--image-opts] FILE BITMAP";
  command.text =
      "Changes BITMAP of the image FILE, which no other program may be using. Several changes in "
      "one\n"
      "call happen in order, all of them or, when one fails, none. A new bitmap is enabled: it\n"
      "records what is written from then on. 'info' lists the bitmaps of an image; one that is\n"
      "'in-use' was not saved after a crash and can only be removed.\n";
  command.examples =
      "  ringdisk bitmap --add disk.qcow2 since-monday\n"
      "  ringdisk bitmap --add --disable -g 4k disk.qcow2 all\n"
      "  ringdisk bitmap --merge since-monday -b disk.qcow2 -F qcow2 copy.qcow2 all\n";
  command.options = kOptions;
  command.one_shard = true;
  command.run = &run;
  return command;
}

}  // namespace ringdisk
