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

namespace ringdisk {
namespace {

constexpr std::array<OptionSpec, 9> kOptions = {{
    kImageFormatOption,
    {'t', "", "CACHE", "cache mode of both images (default: writeback)"},
    {'b', "", "BASE", "the backing image to commit to; only the one right below is supported"},
    {'d', "", "", "leave the image as it is; else it is emptied when all has gone down"},
    kProgressFlag,
    kProgressOption,
    {'r', "", "RATE", "a rate limit is not supported yet"},
    kQuietOption,
    kImageOptsOption,
}};

// What is asked for, and the two images it is about.
struct Commit {
  ImageName top, base;
  CacheMode cache = CacheMode::kWriteback;
  bool keeps_top = false;
  ProgressOptions progress;
};

Result<void> refuse_unsupported(const Arguments& arguments, Diagnostics& diagnostics) {
  if (!arguments.has("r")) return {};
  return diagnostics.explain(Error::of(ErrorKind::kUnsupported, "commit"), "-r is not supported");
}

// The image right below, as the image names it.
Task<ImageName> find_base(Program& program, const Arguments& arguments, const ImageName& top) {
  OpenMode mode;
  mode.read_only = mode.no_backing = mode.keep_clean = true;
  ImageFile image = co_await open_image_file(program, top, mode);
  const std::string filename = image.filename;
  ImageDescription description = co_await describe_and_close(program, image);
  Options options = top.options;
  DescribedBacking described = co_await take_described_backing(options, program.diagnostics());
  const Graph graph = program.graph();
  if (described.names_file()) {
    co_return backing_image_name(graph, std::move(described), "", description.backing_format);
  }
  if (description.backing_name.empty() || described.is_none) {
    co_await fail(usage_error(program.diagnostics(), top.text() + ": has no backing image"));
  }
  // A name without a format may be lent one.
  description.backing_format = described.options.get("driver").value_or(description.backing_format);
  ImageName base = co_await backing_image(program, filename, description);
  const std::string asked = arguments.value("b").value_or(description.backing_name);
  if (asked != description.backing_name && asked != base.filename) {
    co_await fail(usage_error(program.diagnostics(),
                              top.text() + ": '" + asked + "' is not its backing image, '" +
                                  description.backing_name + "' is; commit one step at a time"));
  }
  co_return backing_image_name(graph, std::move(described), base.filename, base.format);
}

Task<void> copy_down(Program& program, const Commit& commit, DeviceNode& top, DeviceNode& base) {
  CopyOptions options;
  options.target_has_backing = true;  // what the image itself does not hold is below already
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
  mode.no_backing = true;
  mode.cache = commit.cache;
  auto body = [&](DeviceNode& top) { return commit_and_empty(program, commit, top); };
  co_await with_device(program, commit.top, mode, body);
}

Task<int> run(Program& program, const Arguments& arguments) {
  Diagnostics& diagnostics = program.diagnostics();
  co_await refuse_unsupported(arguments, diagnostics);
  std::string word = co_await single_name(arguments, diagnostics);
  Commit commit;
  commit.top = co_await source_argument(arguments, word, diagnostics);
  commit.cache = co_await cache_argument(arguments, "t", CacheMode::kWriteback, diagnostics);
  commit.keeps_top = arguments.has("d");
  commit.progress = co_await progress_options(program, arguments, "commit");
  commit.base = co_await find_base(program, arguments, commit.top);
  co_await commit_down(program, commit);
  if (!arguments.has("q")) program.console.write("Image committed.\n");
  co_return 0;
}

}  // namespace

Command commit_command() {
  Command command;
  command.name = "commit";
  command.summary = "write what an image holds into its backing image";
  command.synopsis = "[-f FMT] [-t CACHE] [-b BASE] [-d] [-p] [-q] [--image-opts] FILE";
  command.text =
      "Copies what the image FILE holds of its own into its backing image, which grows if it is\n"
      "smaller, and then empties FILE (-d leaves it as it is). Other images over the same backing\n"
      "image do not survive this. With -t unsafe nothing is flushed: should the machine crash "
      "soon\n"
      "afterwards, what FILE held may be lost from both images.\n";
  command.examples =
      "  ringdisk commit overlay.qcow2\n"
      "  ringdisk commit -d -p overlay.qcow2\n";
  command.options = kOptions;
  command.when_interrupted = ": the backing image holds a part of it; commit again";
  command.run = &run;
  return command;
}

}  // namespace ringdisk
