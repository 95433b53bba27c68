// SPDX-License-Identifier: Apache-2.0
// ringdisk map: where the bytes of a disk lie, through its whole backing chain.
#include "jobs/map.h"

#include <array>
#include <cinttypes>
#include <cstdio>

#include "app/image_command_options.h"
#include "app/images.h"
#include "app/json_text.h"
#include "app/program.h"
#include "base/diagnostics.h"
#include "runtime/shard.h"

namespace ringdisk {
namespace {

constexpr std::array<OptionSpec, 6> kOptions = {{
    kImageFormatOption,
    kOutputOption,
    {'s', "start-offset", "OFFSET", "begin there (default: 0)"},
    {'l', "max-length", "LENGTH", "end so many bytes later (default: the disk's end)"},
    kForceShareOption,
    kImageOptsOption,
}};

std::string flag(const char* name, bool value) {
  return std::string(", \"") + name + "\": " + (value ? "true" : "false");
}

bool is_enciphered(const BlockStatus& status) {
  return status.storage && std::string_view(status.storage->driver()) == "luks";
}

std::string entry_as_json(const MapEntry& entry) {
  const BlockStatus& status = entry.status;
  std::string text = "{ \"start\": " + std::to_string(entry.start.value()) +
                     ", \"length\": " + std::to_string(status.length.value()) +
                     ", \"depth\": " + std::to_string(status.depth);
  text += flag("present", status.present) + flag("zero", status.zero) + flag("data", status.data);
  text += flag("compressed", status.compressed);
  // Where enciphered bytes lie is of no use to who wants the bytes.
  if (status.host && !is_enciphered(status))
    text += ", \"offset\": " + std::to_string(status.host->value());
  return text + "}";
}

// Prints as it goes: a map may be as long as the disk has clusters.
class MapPrinter {
 public:
  MapPrinter(Program& program, const DeviceNode& device, bool as_json)
      : program_(program), device_(device), as_json_(as_json) {
    if (as_json) {
      program.console.write("[");
    } else {
      program.console.write("Offset          Length          Mapped to       File\n");
    }
  }
  Result<void> print(const MapEntry& entry) {
    if (as_json_) {
      program_.console.write((is_first_ ? "" : ",\n") + entry_as_json(entry));
      is_first_ = false;
      return {};
    }
    return print_row(entry);
  }
  void finish() {
    if (as_json_) program_.console.write("]\n");
  }

 private:
  Result<void> print_row(const MapEntry& entry) {
    const BlockStatus& status = entry.status;
    if (!status.data || status.zero) return {};
    if (!status.host || !status.storage || is_enciphered(status)) {
      return program_.diagnostics().explain(
          Error::of(ErrorKind::kUnsupported, "map"), device_.id(),
          "the image holds compressed or encrypted bytes, which lie nowhere as they are; use "
          "--output=json");
    }
    char row[80];
    snprintf(row, sizeof row, "%#-16" PRIx64 "%#-16" PRIx64 "%#-16" PRIx64, entry.start.value(),
             status.length.value(), status.host->value());
    program_.console.write(row + status.storage->name() + "\n");
    return {};
  }

  Program& program_;
  const DeviceNode& device_;
  const bool as_json_;
  bool is_first_ = true;
};

Task<void> print_map(Program& program, DeviceNode& device, GuestRange range, bool as_json) {
  std::unique_ptr<DeviceQueue> queue = co_await device.open_queue(Shard::current());
  MapPrinter printer(program, device, as_json);
  auto visit = [&printer](const MapEntry& entry) { return printer.print(entry); };
  if (!range.empty()) co_await walk_map(*queue, range, visit);
  printer.finish();
}

GuestRange range_within(uint64_t size, uint64_t start, uint64_t length) {
  const uint64_t begin = std::min(start, size);
  return GuestRange(GuestOffset(begin), ByteCount(std::min(length, size - begin)));
}

Task<int> run(Program& program, const Arguments& arguments) {
  Diagnostics& diagnostics = program.diagnostics();
  std::string word = co_await single_name(arguments, diagnostics);
  bool as_json = co_await wants_json(arguments, diagnostics);
  uint64_t start = co_await size_argument(arguments, "start-offset", 0, 0, kOffsetMax, diagnostics);
  uint64_t length =
      co_await size_argument(arguments, "max-length", kOffsetMax, 0, kOffsetMax, diagnostics);
  ImageName name = co_await source_argument(arguments, word, diagnostics);
  OpenMode mode;
  mode.read_only = mode.keep_clean = true;
  mode.share = arguments.has("force-share");
  auto body = [&](DeviceNode& device) {
    const GuestRange range = range_within(device.size().value(), start, length);
    return print_map(program, device, range, as_json);
  };
  co_await with_device(program, std::move(name), mode, body);
  co_return 0;
}

}  // namespace

Command map_command() {
  Command command;
  command.name = "map";
  command.summary = "list where the bytes of a disk lie";
  command.synopsis =
      "[-f FMT] [--output=human|json] [--start-offset=N] [--max-length=N] [-U] [--image-opts] FILE";
  command.text =
      "Lists the extents of the disk FILE and of its backing images: which file holds each, and\n"
      "where. The text form shows what is data; the JSON form also what is zero or not there.\n";
  command.examples =
      "  ringdisk map disk.qcow2\n"
      "  ringdisk map --output=json --start-offset=1G --max-length=1M disk.qcow2\n";
  command.options = kOptions;
  command.one_shard = true;
  command.when_interrupted = ": the list ends too early";
  command.stop_way = StopWay::kFailsRequests;
  command.run = &run;
  return command;
}

}  // namespace ringdisk
