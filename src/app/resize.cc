// SPDX-License-Identifier: Apache-2.0
// ringdisk resize: a disk of another size. What lies beyond a smaller end is given up first, by the
// same requests a guest would discard it with; what a larger disk gains is made to read as zeros,
// also where a backing image or the old last cluster would show through.
#include <algorithm>
#include <array>

#include "app/image_command_options.h"
#include "app/images.h"
#include "app/program.h"
#include "base/diagnostics.h"
#include "runtime/shard.h"

namespace ringdisk {
namespace {

constexpr std::array<OptionSpec, 5> kOptions = {{
    {0, "shrink", "", "allow SIZE to be less than now: what lies beyond is lost"},
    {0, "preallocation", "MODE", "off; taking space for what is gained is not supported yet"},
    kImageFormatOption,
    kQuietOption,
    kImageOptsOption,
}};

struct Resizing {
  ImageName name;
  uint64_t bytes = 0;
  enum class How : uint8_t { kTo, kBy, kLessBy } how = How::kTo;
};

Result<Resizing> read_arguments(const Arguments& arguments, Diagnostics& diagnostics) {
  if (arguments.names().size() != 2) {
    return usage_error(diagnostics, "expecting an image file name and a size");
  }
  const std::string mode = arguments.value("preallocation").value_or("off");
  if (mode != "off") {
    return diagnostics.explain(Error::of(ErrorKind::kUnsupported, "resize"),
                               "--preallocation=" + mode + " is not supported; there is: off");
  }
  Resizing resizing;
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
  if (wanted > kOffsetMax) return usage_error(diagnostics, name + ": no disk can be that large");
  if (wanted < size.value() && !may_shrink) {
    return usage_error(diagnostics, name +
                                        ": is larger than that; --shrink makes it smaller, and all "
                                        "that lies beyond the new end is lost");
  }
  return ByteCount(wanted);
}

Task<void> zero_on(DeviceNode& device, GuestRange range) {
  std::unique_ptr<DeviceQueue> queue = co_await device.open_queue(Shard::current());
  ZeroOptions options;
  options.may_unmap = true;
  co_await queue->write_zeroes(range, options);
  co_await queue->flush();
}

// The disk, opened for writing, reads as zeros in `range` afterwards; it is closed again.
Task<void> zero_and_close(std::shared_ptr<DeviceNode> device, GuestRange range) {
  Result<void> zeroed;
  if (!range.empty() && !device->format().limits().maps_directly) {
    zeroed = co_await zero_on(*device, range).result();
  }
  Result<void> closed = co_await device->close().result();
  co_await std::move(zeroed);
  co_await std::move(closed);
}

// What of a disk that has grown may show something else than zeros: the rest of the cluster in
// which it ended, and what the backing image has beyond the old end.
GuestRange gained_range(const DeviceNode& device, ByteCount old_size) {
  const uint64_t cluster = device.format().limits().cluster_size.value();
  const uint64_t backing = device.backing() ? device.backing()->size().value() : 0;
  const uint64_t begin = old_size.value();
  const uint64_t cluster_end = cluster == 0 ? begin : (begin + cluster - 1) / cluster * cluster;
  const uint64_t end = std::min(device.size().value(), std::max(cluster_end, backing));
  return GuestRange::between(GuestOffset(begin), GuestOffset(std::max(begin, end)));
}

Task<void> change_size(Program& program, const ImageName& name, ByteCount size) {
  OpenMode mode;
  mode.no_backing = true;
  ImageFile image = co_await open_image_file(program, name, mode);
  Graph graph = program.graph();
  co_await image.admin->resize(graph, std::move(image.storage), size);
}

Task<int> run(Program& program, const Arguments& arguments) {
  Resizing resizing = co_await read_arguments(arguments, program.diagnostics());
  Graph graph = program.graph();
  OpenMode mode;
  std::shared_ptr<DeviceNode> device = co_await graph.open(resizing.name, mode);
  const ByteCount old_size = device->size();
  const bool may_shrink = arguments.has("shrink");
  Result<ByteCount> size = new_size(resizing, old_size, may_shrink, program.diagnostics());
  GuestRange lost;
  if (size.ok() && size.value() < old_size) {
    lost = GuestRange::between(GuestOffset(size.value().value()), GuestOffset(old_size.value()));
  }
  co_await zero_and_close(std::move(device), lost);
  const ByteCount wanted = co_await std::move(size);
  co_await change_size(program, resizing.name, wanted);
  if (wanted > old_size) {
    device = co_await graph.open(resizing.name, mode);
    const GuestRange gained = gained_range(*device, old_size);
    co_await zero_and_close(std::move(device), gained);
  }
  if (!arguments.has("q")) program.console.write("Image resized.\n");
  co_return 0;
}

}  // namespace

Command resize_command() {
  Command command;
  command.name = "resize";
  command.summary = "make a disk larger or smaller";
  command.synopsis = "[-f FMT] [--shrink] [-q] [--image-opts] FILE [+|-]SIZE";
  command.text =
      "Gives the disk in FILE the size SIZE, or SIZE more or less than it has. What a larger disk\n"
      "gains reads as zeros. Partitions and file systems are not touched: make those smaller "
      "before,\n"
      "larger afterwards.\n";
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
