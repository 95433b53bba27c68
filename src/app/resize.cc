// SPDX-License-Identifier: Apache-2.0
// ringdisk resize: a disk of another size.
#include <algorithm>
#include <array>

#include "app/disk_size.h"
#include "app/image_command_options.h"
#include "app/images.h"
#include "app/program.h"
#include "base/diagnostics.h"

namespace ringdisk {
namespace {

constexpr std::array<OptionSpec, 5> kOptions = {{
    {0, "shrink", "", "allow SIZE to be less than now: what lies beyond is lost"},
    {0, "preallocation", "MODE", "take space for what is gained: off, metadata, falloc, full"},
    kImageFormatOption,
    kQuietOption,
    kImageOptsOption,
}};

struct Resizing {
  ImageName name;
  uint64_t bytes = 0;
  enum class How : uint8_t { kTo, kBy, kLessBy } how = How::kTo;
  Preallocation preallocation = Preallocation::kOff;
};

Result<Preallocation> preallocation_argument(const Arguments& arguments, Diagnostics& diagnostics) {
  const std::string mode = arguments.value("preallocation").value_or("off");
  const std::optional<Preallocation> how = parse_preallocation(mode);
  if (how) return *how;
  return usage_error(diagnostics,
                     "--preallocation is off, metadata, falloc or full, not '" + mode + "'");
}

Result<Resizing> read_arguments(const Arguments& arguments, Diagnostics& diagnostics) {
  if (arguments.names().size() != 2) {
    return usage_error(diagnostics, "expecting an image file name and a size");
  }
  Resizing resizing;
  ASSIGN_OR_RETURN(resizing.preallocation, preallocation_argument(arguments, diagnostics));
  std::string_view text = arguments.names()[1];
  if (text.starts_with('+')) resizing.how = Resizing::How::kBy;
  if (text.starts_with('-')) resizing.how = Resizing::How::kLessBy;
  if (resizing.how != Resizing::How::kTo) text.remove_prefix(1);
  Result<uint64_t> size = parse_size(text);
  if (!size.ok()) {
    return usage_error(diagnostics, "invalid image size '" + arguments.names()[1] +
                                        "'; write a number with k, M, G, T, P or E behind it, and "
                                        "+ or - before it for a change by so much");
  }
  resizing.bytes = size.value();
  ASSIGN_OR_RETURN(resizing.name,
                   source_argument(arguments, arguments.names().front(), diagnostics));
  return resizing;
}

Result<ByteCount> new_size(const Resizing& resizing, ByteCount size, bool may_shrink,
                           Diagnostics& diagnostics) {
  const std::string name = resizing.name.text();
  uint64_t wanted = resizing.bytes;
  if (resizing.how == Resizing::How::kLessBy) {
    if (wanted > size.value()) {
      return usage_error(diagnostics, name + ": there is not so much to take away");
    }
    wanted = size.value() - wanted;
  }
  if (resizing.how == Resizing::How::kBy) wanted = size.value() + std::min(wanted, kOffsetMax);
  if (wanted == 0) return usage_error(diagnostics, name + ": a disk has to keep some size");
  if (wanted > kOffsetMax) return usage_error(diagnostics, name + ": no disk can be that large");
  if (wanted < size.value() && !may_shrink) {
    return usage_error(diagnostics, name +
                                        ": is larger than that; --shrink makes it smaller, and all "
                                        "that lies beyond the new end is lost");
  }
  return ByteCount(wanted);
}

Task<int> run(Program& program, const Arguments& arguments) {
  Resizing resizing = co_await read_arguments(arguments, program.diagnostics());
  OpenMode mode;
  const ByteCount old_size = co_await size_of_disk(program, resizing.name, mode);
  const bool may_shrink = arguments.has("shrink");
  ByteCount size = co_await new_size(resizing, old_size, may_shrink, program.diagnostics());
  if (size < old_size && resizing.preallocation != Preallocation::kOff) {
    co_await fail(usage_error(program.diagnostics(), "--preallocation is for disks that grow"));
  }
  co_await change_disk_size(program, resizing.name, mode, old_size, size, resizing.preallocation);
  if (!arguments.has("q")) program.console.write("Image resized.\n");
  co_return 0;
}

}  // namespace

Command resize_command() {
  Command command;
  command.name = "resize";
  command.summary = "make a disk larger or smaller";
  command.synopsis =
      "[-f FMT] [--shrink] [--preallocation=MODE] [-q] [--image-opts] FILE [+|-]SIZE";
  command.text =
      "Gives the disk in FILE the size SIZE, or SIZE more or less than it has. What a larger disk\n"
      "gains reads as zeros, of a LUKS disk as noise. Partitions and file systems are not "
      "touched:\n"
      "make those smaller before, larger afterwards.\n";
  command.examples =
      "  ringdisk resize disk.qcow2 +10G\n"
      "  ringdisk resize --shrink -f raw disk.img 20G\n";
  command.options = kOptions;
  command.one_shard = true;
  command.last_word_is_name = true;
  command.run = &run;
  return command;
}

}  // namespace ringdisk
