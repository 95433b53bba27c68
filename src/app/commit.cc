// SPDX-License-Identifier: Apache-2.0
// ringdisk commit: what an image holds goes down into its backing image. In this order, so that a
// crash at any moment loses nothing: the backing image grows where it is smaller, receives what the
// image holds, is flushed; only then is the image emptied. It stays open, and locked, from the
// first byte that is copied until it is empty, so that nobody's writes come in between and go with
// it.
#include <array>

#include "app/disk_size.h"
#include "app/image_command_options.h"
#include "app/images.h"
#include "app/long_job.h"
#include "app/program.h"
#include "base/diagnostics.h"
#include "block/described_backing.h"
#include "jobs/copy.h"
#include "runtime/blocking_pool.h"

namespace ringdisk {
namespace {

constexpr std::array<OptionSpec, 9> kOptions = {{
    kImageFormatOption,
    {'t', "", "CACHE", "cache mode of both images (default: writeback)"},
    {'b', "", "BASE", "the backing image to commit to (default: the one right below); means -d"},
    {'d', "", "", "leave the image as it is; else it is emptied when all is in the one below"},
    kProgressFlag,
    kProgressOption,
    kRateOption,
    kQuietOption,
    kImageOptsOption,
}};

// What is asked for, and the two images it is about.
struct Commit {
  ImageName top, base;
  uint32_t layers = 1;  // images above the base: their content goes down
  CacheMode cache = CacheMode::kWriteback;
  bool keeps_top = false;
  uint64_t bytes_per_second = 0;  // 0: as fast as it goes
  ProgressOptions progress;
};

struct BackingStep {
  ImageName image;
  std::string recorded;  // what the image above calls it
};

// The image right below another one; nullopt: there is none.
Task<std::optional<BackingStep>> step_down(Program& program, const ImageName& from) {
  OpenMode mode;
  mode.read_only = mode.no_backing = mode.keep_clean = true;
  ImageFile image = co_await open_image_file(program, from, mode);
  const std::string filename = image.filename;
  ImageDescription description = co_await describe_and_close(program, image);
  Options options = from.options;
  DescribedBacking described = co_await take_described_backing(options, program.diagnostics());
  const Graph graph = program.graph();
  if (described.names_file()) {
    co_return BackingStep{
        backing_image_name(graph, std::move(described), "", description.backing_format), ""};
  }
  if (description.backing_name.empty() || described.is_none) co_return std::nullopt;
  // A name without a format may be lent one.
  description.backing_format = described.options.get("driver").value_or(description.backing_format);
  const ImageName below = co_await backing_image(program, filename, description);
  co_return BackingStep{
      backing_image_name(graph, std::move(described), below.filename, below.format),
      description.backing_name};
}

Task<bool> is_called(Program& program, const BackingStep& step, const std::string& asked) {
  if (asked == step.recorded) co_return true;
  const std::string path = step.image.text();
  auto compare = [&](Blocking token) -> Result<bool> { return is_same_file(token, asked, path); };
  co_return co_await run_blocking(program.world.blocking, compare);
}

// The image right below the top, or the one below it that is asked for.
Task<void> find_base(Program& program, std::optional<std::string> asked, Commit& commit) {
  ImageName at = commit.top;
  for (commit.layers = 1; commit.layers <= limits::kBackingDepthMax; ++commit.layers) {
    std::optional<BackingStep> below = co_await step_down(program, at);
    if (!below) break;
    bool is_it = !asked;
    if (asked) is_it = co_await is_called(program, *below, *asked);
    below->image.prefix = at.prefix + kBackingPrefix;
    at = std::move(below->image);
    if (!is_it) continue;
    commit.base = std::move(at);
    co_return;
  }
  const std::string text = commit.top.text();
  if (!asked) co_await fail(usage_error(program.diagnostics(), text + ": has no backing image"));
  co_await fail(usage_error(program.diagnostics(),
                            text + ": '" + asked.value() + "' is no backing image of it"));
}

// The image as it is without what lies below its first `layers` images: so that the base, which is
// to be written, is not opened a second time.
ImageName cut_off(ImageName name, uint32_t layers) {
  if (name.options.empty()) {
    name.options.set("file.filename", name.filename);
    if (!name.format.empty()) name.options.set("driver", name.format);
  }
  std::string below = "backing";
  for (uint32_t layer = 1; layer < layers; ++layer) below += ".backing";
  static_cast<void>(name.options.take_group(below));
  name.options.set(below, "");
  return name;
}

Task<void> copy_down(Program& program, const Commit& commit, DeviceNode& top, DeviceNode& base) {
  CopyOptions options;
  options.target_has_backing = true;  // what the images above do not hold is there already
  options.layers = commit.layers;
  options.bytes_per_second = commit.bytes_per_second;
  CopyJob job(program.world, {&top}, base, options);
  ProgressReporter reporter(
      commit.progress, [&job] { return job.done_bytes(); }, [&job] { return job.total_bytes(); });
  auto body = [&job](CancelToken token) { return job.run(token); };
  co_await run_long_job(program, reporter, body);
}

Task<std::shared_ptr<DeviceNode>> open_base(Program& program, const Commit& commit,
                                            ByteCount size) {
  OpenMode mode;
  mode.cache = commit.cache;
  Graph graph = program.graph();
  std::shared_ptr<DeviceNode> base = co_await graph.open(commit.base, mode);
  const ByteCount base_size = base->size();
  if (base_size >= size) co_return std::move(base);
  co_await base->close();
  co_await change_disk_size(program, commit.base, mode, base_size, size);
  co_return co_await graph.open(commit.base, mode);
}

Task<void> commit_from(Program& program, const Commit& commit, DeviceNode& top) {
  std::shared_ptr<DeviceNode> base = co_await open_base(program, commit, top.size());
  Result<void> copied = co_await copy_down(program, commit, top, *base).result();
  co_await close_after(std::move(copied), *base);
}

Task<void> commit_and_empty(Program& program, const Commit& commit, DeviceNode& top) {
  co_await commit_from(program, commit, top);
  if (commit.keeps_top) co_return;
  FormatAdmin* admin = co_await program.find_admin(top.format().driver());
  co_await admin->make_empty(program.world, top.format());
}

Task<void> commit_down(Program& program, const Commit& commit) {
  OpenMode mode;
  mode.read_only = commit.keeps_top;
  mode.no_backing = commit.layers == 1;
  mode.cache = commit.cache;
  ImageName top = commit.layers == 1 ? commit.top : cut_off(commit.top, commit.layers);
  auto body = [&](DeviceNode& device) { return commit_and_empty(program, commit, device); };
  co_await with_device(program, std::move(top), mode, body);
}

Task<int> run(Program& program, const Arguments& arguments) {
  Diagnostics& diagnostics = program.diagnostics();
  std::string word = co_await single_name(arguments, diagnostics);
  Commit commit;
  commit.top = co_await source_argument(arguments, word, diagnostics);
  commit.cache = co_await cache_argument(arguments, "t", CacheMode::kWriteback, diagnostics);
  commit.bytes_per_second = co_await rate_argument(arguments, diagnostics);
  commit.progress = co_await progress_options(program, arguments, "commit");
  co_await find_base(program, arguments.value("b"), commit);
  // What lies between the two would show something else if the top were emptied. Nor is it where
  // the base is named and the one right below, as in qemu-img: -b alone is to tell what becomes of
  // the image, and not how long its chain is.
  commit.keeps_top = arguments.has("d") || arguments.has("b");
  co_await commit_down(program, commit);
  if (!arguments.has("q")) program.console.write("Image committed.\n");
  co_return 0;
}

}  // namespace

Command commit_command() {
  Command command;
  command.name = "commit";
  command.summary = "write what an image holds into its backing image";
  command.synopsis = "[-f FMT] [-t CACHE] [-b BASE] [-d] [-r RATE] [-p] [-q] [--image-opts] FILE";
  command.text =
      "Copies what the image FILE holds of its own into its backing image, which grows if it is\n"
      "smaller, and then empties FILE (-d and -b leave it as it is). Other images over the same\n"
      "backing image do not survive this. Where BASE lies further down the chain, what all images\n"
      "above it hold goes into it, and they stay as they are. With -t unsafe nothing is flushed:\n"
      "should the machine crash soon afterwards, what FILE held may be lost from both images.\n";
  command.examples =
      "  ringdisk commit overlay.qcow2\n"
      "  ringdisk commit -d -p overlay.qcow2\n";
  command.options = kOptions;
  command.when_interrupted = ": the backing image holds a part of it; commit again";
  command.run = &run;
  return command;
}

}  // namespace ringdisk
