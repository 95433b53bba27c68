// SPDX-License-Identifier: Apache-2.0
// ringdisk convert: one or several images, laid end to end, into another one.
#include <algorithm>

#include "app/convert_bitmaps.h"
#include "app/convert_request.h"
#include "app/create_image.h"
#include "app/images.h"
#include "app/long_job.h"
#include "app/program.h"
#include "base/diagnostics.h"
#include "base/log.h"
#include "jobs/copy.h"
#include "runtime/blocking_pool.h"
#include "runtime/shard.h"

namespace ringdisk {
namespace {

Task<void> open_sources(Program& program, const ConvertRequest& request, Devices& sources) {
  OpenMode mode;
  mode.read_only = true;
  mode.share = request.share;
  mode.cache = request.source_cache;
  co_await open_devices(program, request.sources, mode, sources);
}

ByteCount total_size(const Devices& sources) {
  ByteCount total;
  for (const auto& source : sources) total += source->size();
  return total;
}

// Nobody wants to lose a source, or what lies below it, for the target.
Task<void> refuse_same_file(Program& program, const ConvertRequest& request,
                            const Devices& sources) {
  auto compare = [&](Blocking token) -> Result<void> {
    for (const auto& source : sources) {
      for (const DeviceNode* node = source.get(); node; node = node->backing().get()) {
        if (!is_same_file(token, node->name(), request.target.text())) continue;
        const bool is_below = node != source.get();
        return usage_error(program.diagnostics(),
                           request.target.text() + (is_below ? ": is a backing image of the source"
                                                             : ": source and target are the same "
                                                               "image"));
      }
    }
    return {};
  };
  co_await run_blocking(program.world.blocking, compare);
}

// What was made with a secret is opened with it.
ImageName name_of_new(const ConvertRequest& request) {
  const NewImage& made = request.new_target;
  ImageName name = request.target;
  name.format = made.admin->name();
  for (const char* key : {"key-secret", "encrypt.key-secret"}) {
    const std::optional<std::string> secret = made.options.get(key);
    if (!secret) continue;
    name.options.set("driver", name.format);
    name.options.set("file.filename", made.filename);
    name.options.set(key, *secret);
  }
  return name;
}

Task<std::shared_ptr<DeviceNode>> open_target(Program& program, const ConvertRequest& request,
                                              ByteCount wanted) {
  OpenMode mode;
  mode.cache = request.target_cache;
  ImageName name = request.keeps_target ? request.target : name_of_new(request);
  Graph graph = program.graph();
  std::shared_ptr<DeviceNode> target = co_await graph.open(std::move(name), mode);
  if (target->size() >= wanted) co_return std::move(target);
  Error error = program.diagnostics().explain(
      Error::of(ErrorKind::kInvalid, "convert"), target->id(),
      "is smaller than the source (" + std::to_string(target->size().value()) + " bytes, needed " +
          std::to_string(wanted.value()) + ")");
  Result<void> closed = co_await target->close().result();
  static_cast<void>(closed.ok());
  co_return error;
}

// A new regular file, and new clusters of any format, read as zeros; a device holds what it held.
Task<bool> target_reads_zero(Program& program, const ConvertRequest& request, DeviceNode& target) {
  if (request.target_is_zero) co_return true;
  if (request.keeps_target || !request.new_target.backing_name.empty()) co_return false;
  if (!request.new_target.admin->new_reads_zero()) co_return false;
  if (!target.format().limits().maps_directly) co_return true;
  auto kind = [&](Blocking token) -> Result<PathKind> {
    return kind_of_path(token, request.new_target.filename);
  };
  PathKind kind_of_target = co_await run_blocking(program.world.blocking, kind);
  co_return kind_of_target == PathKind::kRegularFile;
}

// A new disk whose sectors are larger than the source's may be a little longer than that, and what
// nobody wrote of it may be noise.
Task<void> zero_rest_of_sector(DeviceNode& target, ByteCount begin) {
  constexpr uint64_t kSectorBytesMax = 4096;
  const GuestOffset from(begin.value()), disk_end(target.size().value());
  const GuestOffset end = std::min(from.align_up(kSectorBytesMax), disk_end);
  if (from == end) co_return;
  std::unique_ptr<DeviceQueue> queue = co_await target.open_queue(Shard::current());
  co_await queue->write_zeroes(GuestRange::between(from, end), ZeroOptions());
}

// What --salvage has left out.
void tell_unreadable(Program& program, const UnreadableRanges& unreadable) {
  if (unreadable.bytes() == 0) return;
  uint64_t left = unreadable.bytes();
  for (const UnreadableRange& one : unreadable.first()) {
    const uint64_t bytes = one.range.length.value();
    left -= bytes;
    program.world.log.warning(program.diagnostics().describe(one.error) +
                              "; the target has zeros " + "there, " + std::to_string(bytes) +
                              " bytes from " + std::to_string(one.range.offset.value()) + " on");
  }
  if (left != 0) {
    program.world.log.warning(std::to_string(left) + " bytes more, elsewhere, are not listed");
  }
}

Task<void> copy(Program& program, const ConvertRequest& request, const Devices& sources,
                DeviceNode& target) {
  CopyOptions options;
  options.sparse_bytes = request.sparse_bytes;
  options.requests_in_flight = request.requests_in_flight;
  options.compress = request.compression.wanted;
  options.compression_level = request.compression.level;
  options.target_has_backing = !request.new_target.backing_name.empty();
  options.target_reads_zero = co_await target_reads_zero(program, request, target);
  if (!request.keeps_target && !request.new_target.admin->new_reads_zero()) {
    co_await zero_rest_of_sector(target, total_size(sources));
  }
  options.salvage = request.salvage;
  options.bytes_per_second = request.bytes_per_second;
  std::vector<DeviceNode*> pointers;
  for (const auto& source : sources) pointers.push_back(source.get());
  CopyJob job(program.world, std::move(pointers), target, options);
  ProgressReporter reporter(
      request.progress, [&job] { return job.done_bytes(); }, [&job] { return job.total_bytes(); });
  auto body = [&job](CancelToken token) { return job.run(token); };
  Result<void> copied = co_await run_long_job(program, reporter, body).result();
  if (!request.is_quiet) tell_unreadable(program, job.unreadable());
  co_await std::move(copied);
}

// Sets `is_touched` as soon as the target may hold other bytes than before.
Task<void> fill_target(Program& program, const ConvertRequest& request, const Devices& sources,
                       const std::vector<BitmapEdit>& bitmaps, bool& is_touched) {
  std::shared_ptr<DeviceNode> target = co_await open_target(program, request, total_size(sources));
  Result<void> copied = check_compression(request.compression, *target, program.diagnostics());
  if (copied.ok()) copied = co_await check_target_bitmaps(program, bitmaps, *target).result();
  if (copied.ok()) {
    is_touched = true;
    copied = co_await copy(program, request, sources, *target).result();
  }
  co_await close_after(std::move(copied), *target);
  co_await write_target_bitmaps(program, request, bitmaps);
}

// What failed on the way leaves no half image behind, or says that it does.
Task<void> clear_up(Program& program, const ConvertRequest& request) {
  const std::string filename = request.target.text();
  auto find_kind = [&](Blocking token) -> Result<PathKind> {
    return kind_of_path(token, filename);
  };
  PathKind kind = co_await run_blocking(program.world.blocking, find_kind);
  if (!request.keeps_target && kind == PathKind::kRegularFile) {
    co_await remove_leftover(program, filename);
    co_return;
  }
  program.console.remark("ringdisk: " + filename +
                         ": holds only a part of the source; convert again before using it\n");
}

Task<void> convert_opened(Program& program, ConvertRequest& request, const Devices& sources) {
  bool is_touched = !request.keeps_target;
  co_await refuse_same_file(program, request, sources);
  const std::vector<BitmapEdit> bitmaps = co_await read_source_bitmaps(program, request, sources);
  if (!request.keeps_target) {
    request.new_target.size = total_size(sources);
    co_await create_image(program, request.new_target);
  }
  Result<void> filled =
      co_await fill_target(program, request, sources, bitmaps, is_touched).result();
  if (!filled.ok() && is_touched) {
    Result<void> cleared = co_await clear_up(program, request).result();
    static_cast<void>(cleared.ok());
  }
  co_await std::move(filled);
}

Task<void> convert(Program& program, ConvertRequest& request, Devices& sources) {
  co_await open_sources(program, request, sources);
  co_await convert_opened(program, request, sources);
}

Task<int> run(Program& program, const Arguments& arguments) {
  bool was_help = co_await print_option_help(program, arguments, "O");
  if (was_help) co_return 0;
  ConvertRequest request = co_await read_convert_request(program, arguments);
  Devices sources;
  Result<void> done = co_await convert(program, request, sources).result();
  Result<void> closed = co_await close_devices(sources).result();
  co_await std::move(done);
  co_await std::move(closed);
  co_return 0;
}

}  // namespace

Command convert_command() {
  Command command;
  command.name = "convert";
  command.summary = "copy images into another one, of any format";
  command.synopsis =
      "[-c] [-f FMT] [-O FMT] [-o OPTIONS] [-B BACKING -F FMT] [-n] [-p] [-q] [-S SIZE]\n"
      "                [--bitmaps] [--salvage] [-r RATE] [-t CACHE] [-T CACHE] [-m N] [-W] [-U]\n"
      "                FILE [FILE ...] TARGET";
  command.text =
      "Copies the disk FILE (several are laid end to end) into the new image TARGET. Zeros are\n"
      "found and left out. With -n TARGET exists already and its old content is replaced.\n"
      "With -c clusters are compressed where that makes them smaller; -o compression_type=zstd\n"
      "chooses how, -o compression_level=N how much effort it is worth.\n"
      "Unless -t says otherwise the target is in the page cache when this ends, not yet on the\n"
      "disk (cache mode unsafe, as qemu-img convert has it); -t writeback makes it durable.\n"
      "When it fails or is interrupted a target that it made is removed again.\n";
  command.examples =
      "  ringdisk convert -p -O qcow2 disk.raw disk.qcow2\n"
      "  ringdisk convert -f qcow2 -O raw -t writeback disk.qcow2 disk.raw\n"
      "  ringdisk convert -c -O qcow2 -o compression_type=zstd,compression_level=9 a.raw a.qcow2\n"
      "  ringdisk convert -n -O raw disk.qcow2 /dev/vg/disk\n";
  command.options = convert_options();
  command.run = &run;
  return command;
}

}  // namespace ringdisk
