// SPDX-License-Identifier: Apache-2.0
// ringdisk rebase: another backing image, or none. In this order, so that the disk reads the same
// at any moment: what only the old chain holds is copied into the image, all of it is durable, then
// the recorded name changes. The image stays open, and locked, all the while, so that nobody's
// change comes in between. With -u the name alone.
#include "jobs/rebase.h"

#include <array>

#include "app/convert_compression.h"
#include "app/create_image.h"
#include "app/image_command_options.h"
#include "app/images.h"
#include "app/long_job.h"
#include "app/program.h"
#include "base/diagnostics.h"
#include "runtime/blocking_pool.h"

namespace ringdisk {
namespace {

constexpr std::array<OptionSpec, 12> kOptions = {{
    {'b', "", "FILE", "the new backing image; '' for none"},
    {'F', "", "FMT", "its format"},
    {'u', "", "", "change the name alone, and look at no backing image"},
    kImageFormatOption,
    {'t', "", "CACHE", "cache mode of the image (default: writeback)"},
    {'T', "", "CACHE", "cache mode of backing images (default: writeback)"},
    {'c', "", "", "compress what is copied"},
    {'U', "force-share", "", "do not insist on locks of the new backing image"},
    kProgressFlag,
    kProgressOption,
    kQuietOption,
    kImageOptsOption,
}};

// What is asked for.
struct Rebasing {
  ImageName name;
  std::string filename;  // of the image
  std::string backing_name, backing_format;
  OpenMode mode;        // of the image
  OpenMode below_mode;  // of the new backing image
  bool changes_name_alone = false;
  bool compresses = false;
  ProgressOptions progress;
};

Result<void> take_new_backing(const Arguments& arguments, Rebasing& rebasing,
                              Diagnostics& diagnostics) {
  if (!arguments.has("b")) {
    return usage_error(diagnostics, "expecting a backing image (-b FILE); -b '' is for none");
  }
  NewImage named;
  named.filename = rebasing.name.text();
  RETURN_IF_ERROR(take_backing(arguments, "b", named, diagnostics));
  rebasing.backing_name = named.backing_name;
  rebasing.backing_format = named.backing_format;
  return {};
}

Task<Rebasing> read_arguments(Program& program, const Arguments& arguments) {
  Diagnostics& diagnostics = program.diagnostics();
  std::string word = co_await single_name(arguments, diagnostics);
  Rebasing rebasing;
  rebasing.name = co_await source_argument(arguments, word, diagnostics);
  co_await take_new_backing(arguments, rebasing, diagnostics);
  rebasing.changes_name_alone = arguments.has("u");
  rebasing.compresses = arguments.has("c");
  rebasing.below_mode.share = arguments.has("force-share");
  rebasing.mode.cache = co_await cache_argument(arguments, "t", CacheMode::kWriteback, diagnostics);
  rebasing.below_mode.cache =
      co_await cache_argument(arguments, "T", CacheMode::kWriteback, diagnostics);
  rebasing.below_mode.read_only = true;
  rebasing.progress = co_await progress_options(program, arguments, "rebase");
  co_return std::move(rebasing);
}

// What the image records now; its path goes to `rebasing`.
Task<ImageDescription> look_at(Program& program, Rebasing& rebasing) {
  OpenMode mode = rebasing.mode;
  mode.read_only = mode.no_backing = mode.keep_clean = true;
  ImageFile image = co_await open_image_file(program, rebasing.name, mode);
  rebasing.filename = image.filename;
  if (rebasing.name.options.empty()) rebasing.name.format = image.format;
  co_return co_await describe_and_close(program, image);
}

Task<void> refuse_own_chain(Program& program, const Rebasing& rebasing) {
  if (rebasing.backing_name.empty() || rebasing.filename.empty()) co_return;
  NewImage image;
  image.filename = rebasing.filename;
  image.backing_name = rebasing.backing_name;
  image.backing_format = rebasing.backing_format;
  image.backing_is_trusted = rebasing.changes_name_alone;
  co_await refuse_loop(program, image);
}

// --- copying what differs

Task<void> run_job(Program& program, const Rebasing& rebasing, DeviceNode& overlay,
                   DeviceNode* below) {
  RebaseOptions options;
  options.compress = rebasing.compresses;
  RebaseJob job(program.world, overlay, below, options);
  ProgressReporter reporter(
      rebasing.progress, [&job] { return job.done_bytes(); }, [&job] { return job.total_bytes(); });
  auto body = [&job](CancelToken token) { return job.run(token); };
  co_await run_long_job(program, reporter, body);
}

Task<void> rebase_from(Program& program, const Rebasing& rebasing, DeviceNode& overlay) {
  if (rebasing.backing_name.empty()) {
    co_await run_job(program, rebasing, overlay, nullptr);
    co_return;
  }
  // Named as the image will name it, so it passes the gate as it will have to.
  ImageDescription then;
  then.backing_name = rebasing.backing_name;
  then.backing_format = rebasing.backing_format;
  ImageName name = co_await backing_image(program, rebasing.filename, then);
  auto body = [&](DeviceNode& below) { return run_job(program, rebasing, overlay, &below); };
  co_await with_device(program, std::move(name), rebasing.below_mode, body);
}

Task<void> change_name(Program& program, const Rebasing& rebasing, DeviceNode& overlay) {
  FormatAdmin* admin = co_await program.find_admin(overlay.format().driver());
  co_await admin->change_backing(program.world, overlay.format(), rebasing.backing_name,
                                 rebasing.backing_format);
}

Task<void> copy_and_change_name(Program& program, const Rebasing& rebasing, DeviceNode& overlay) {
  CompressionRequest compression;
  compression.wanted = rebasing.compresses;
  co_await check_compression(compression, overlay, program.diagnostics());
  co_await rebase_from(program, rebasing, overlay);
  co_await change_name(program, rebasing, overlay);
}

Task<void> rebase_safely(Program& program, const Rebasing& rebasing, const ImageDescription& now) {
  if (!now.snapshots.empty()) {
    co_await fail(usage_error(program.diagnostics(),
                              rebasing.name.text() +
                                  ": has snapshots, which would show the new backing image; "
                                  "delete them, or say -u if the images hold the same"));
  }
  OpenMode mode = rebasing.mode;
  mode.keep_zeroes = true;
  auto body = [&](DeviceNode& overlay) { return copy_and_change_name(program, rebasing, overlay); };
  co_await with_device(program, rebasing.name, mode, body);
}

Task<void> rebase_name_alone(Program& program, const Rebasing& rebasing) {
  OpenMode mode = rebasing.mode;
  mode.no_backing = true;
  auto body = [&](DeviceNode& overlay) { return change_name(program, rebasing, overlay); };
  co_await with_device(program, rebasing.name, mode, body);
}

Task<int> run(Program& program, const Arguments& arguments) {
  Rebasing rebasing = co_await read_arguments(program, arguments);
  const ImageDescription now = co_await look_at(program, rebasing);
  co_await refuse_own_chain(program, rebasing);
  if (rebasing.changes_name_alone) {
    co_await rebase_name_alone(program, rebasing);
  } else {
    co_await rebase_safely(program, rebasing, now);
  }
  co_return 0;
}

}  // namespace

Command rebase_command() {
  Command command;
  command.name = "rebase";
  command.summary = "give an image another backing image, or none";
  command.synopsis =
      "-b BACKING [-F FMT] [-u] [-c] [-f FMT] [-t CACHE] [-T CACHE] [-U] [-p] [-q] [--image-opts] "
      "FILE";
  command.text =
      "Makes BACKING the backing image of FILE. What FILE shows stays the same: where it would be\n"
      "something else, it is copied into FILE first. -b '' copies all of it, and FILE needs no\n"
      "backing image any more. With -u only the name changes, for backing images that were moved\n"
      "or renamed. With -c what is copied is compressed.\n";
  command.examples =
      "  ringdisk rebase -b other.qcow2 -F qcow2 overlay.qcow2\n"
      "  ringdisk rebase -b '' overlay.qcow2\n"
      "  ringdisk rebase -u -b /new/place/base.qcow2 -F qcow2 overlay.qcow2\n";
  command.options = kOptions;
  command.when_interrupted = ": the image keeps its backing image, and shows what it showed";
  command.run = &run;
  return command;
}

}  // namespace ringdisk
