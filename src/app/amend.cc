// SPDX-License-Identifier: Apache-2.0
// ringdisk amend: other options for an image that is there already. The size comes last: it is the
// one that needs the disk and its backing image, and every version can have another.
#include <array>

#include "app/create_image.h"
#include "app/disk_size.h"
#include "app/image_command_options.h"
#include "app/images.h"
#include "app/long_job.h"
#include "app/program.h"
#include "base/diagnostics.h"

namespace ringdisk {
namespace {

constexpr std::array<OptionSpec, 8> kOptions = {{
    {'o', "", "OPTIONS", "what to change, a=b,c=d; '-o help' lists what can be"},
    {0, "force", "", "replace a key slot in use, or remove the last one"},
    kImageFormatOption,
    {'t', "", "CACHE", "cache mode (default: writeback)"},
    kProgressFlag,
    kProgressOption,
    kQuietOption,
    kImageOptsOption,
}};

// What is asked for, of which image.
struct Amending {
  ImageName name;
  OpenMode mode;
  FormatAdmin* admin = nullptr;
  Options options;
  std::optional<ByteCount> size;
};

Task<std::unique_ptr<SharedStorage>> open_alone(Program& program, ImageName name, OpenMode mode) {
  ImageFile image = co_await open_image_file(program, std::move(name), mode);
  co_return std::move(image.storage);
}

Result<std::optional<ByteCount>> take_new_size(Options& options, const std::string& filename,
                                               Diagnostics& diagnostics) {
  const std::optional<std::string> text = options.take("size");
  if (!text) return std::optional<ByteCount>();
  Result<uint64_t> size = parse_size(*text);
  if (size.ok() && size.value() <= kOffsetMax) return std::optional<ByteCount>(size.value());
  return usage_error(diagnostics, filename + ": invalid image size '" + *text + "'");
}

// The format has to be known before -o can be read; nothing is kept open.
Task<Amending> read_arguments(Program& program, const Arguments& arguments) {
  Diagnostics& diagnostics = program.diagnostics();
  std::string word = co_await single_name(arguments, diagnostics);
  Amending amending;
  amending.name = co_await source_argument(arguments, word, diagnostics);
  amending.mode.no_backing = true;
  amending.mode.cache = co_await cache_argument(arguments, "t", CacheMode::kWriteback, diagnostics);
  OpenMode looking = amending.mode;
  looking.read_only = looking.keep_clean = true;
  ImageFile image = co_await open_image_file(program, amending.name, looking);
  amending.admin = image.admin;
  if (amending.name.options.empty()) amending.name.format = image.format;
  co_await image.storage->node->close();
  const bool asks_for_help = co_await asks_for_option_help(arguments, diagnostics);
  if (asks_for_help) co_return std::move(amending);
  const std::string text = amending.name.text();
  amending.options = co_await new_image_options(arguments.values("o"), text, diagnostics);
  amending.size = co_await take_new_size(amending.options, text, diagnostics);
  if (const std::optional<std::string> format = amending.options.get("backing_fmt")) {
    co_await check_backing_format(*format, text, diagnostics);
  }
  co_return std::move(amending);
}

// What opens the image (--image-opts …,key-secret=sec0) is what adds a key slot to it.
void add_key_secret(const Options& described, Options& options) {
  for (const std::string prefix : {"", "encrypt."}) {
    const std::string key = prefix + "key-secret";
    const std::optional<std::string> id = described.get(key);
    if (id && options.has(prefix + "state") && !options.has(key)) options.set(key, *id);
  }
}

void add_force(Options& options) {
  for (const std::string prefix : {"", "encrypt."}) {
    if (options.has(prefix + "state")) options.set(prefix + kForceAmendment, "on");
  }
}

Task<void> amend_options_of(Program& program, const Arguments& arguments,
                            const Amending& amending) {
  ProgressOptions form = co_await progress_options(program, arguments, "amend");
  form.counts_bytes = false;
  AmendProgress progress;
  ProgressReporter reporter(
      form, [&] { return progress.done; }, [&] { return progress.total; });
  Graph graph = program.graph();
  auto body = [&](CancelToken token) {
    AmendRequest request;
    request.open = [&] { return open_alone(program, amending.name, amending.mode); };
    request.options = amending.options;
    add_key_secret(amending.name.options, request.options);
    if (arguments.has("force")) add_force(request.options);
    request.cancel = token;
    request.on_progress = [&progress](AmendProgress now) { progress = now; };
    return amending.admin->amend(graph, std::move(request));
  };
  co_await run_long_job(program, reporter, body);
}

// Options that are wrong in themselves are told without an image; here there is one.
Task<void> amend_named(Program& program, const Arguments& arguments, const Amending& amending) {
  Result<void> amended = co_await amend_options_of(program, arguments, amending).result();
  if (amended.ok()) co_return;
  co_await fail(about_image(program.diagnostics(), amended.error(), amending.name.text()));
}

Task<void> change_size(Program& program, const Amending& amending) {
  OpenMode mode = amending.mode;
  mode.no_backing = false;
  const ByteCount old_size = co_await size_of_disk(program, amending.name, mode);
  co_await change_disk_size(program, amending.name, mode, old_size, *amending.size);
}

Task<int> run(Program& program, const Arguments& arguments) {
  if (!arguments.has("o")) {
    co_await fail(
        usage_error(program.diagnostics(), "expecting options (-o); '-o help' lists them"));
  }
  const std::optional<std::string> format = arguments.value("f");
  const bool asks_for_help = co_await asks_for_option_help(arguments, program.diagnostics());
  if (asks_for_help && arguments.names().empty() && format) {
    FormatAdmin* admin = co_await program.find_admin(*format);
    print_option_help(program, admin->amend_options());
    co_return 0;
  }
  const Amending amending = co_await read_arguments(program, arguments);
  if (asks_for_help) {
    print_option_help(program, amending.admin->amend_options());
    co_return 0;
  }
  const bool is_only_size = amending.size && amending.options.empty();
  if (!is_only_size || amending.admin->amend_options().empty()) {
    co_await amend_named(program, arguments, amending);
  }
  if (amending.size) co_await change_size(program, amending);
  co_return 0;
}

}  // namespace

Command amend_command() {
  Command command;
  command.name = "amend";
  command.summary = "change options of an image";
  command.synopsis = "-o OPTIONS [--force] [-f FMT] [-t CACHE] [-p] [-q] [--image-opts] FILE";
  command.text =
      "Changes what the image FILE was made with, in place: its version, the width of its\n"
      "refcounts, its size, and what '-o help' lists besides. A smaller size cuts off what lies\n"
      "beyond it.\n";
  command.examples =
      "  ringdisk amend -o compat=1.1,refcount_bits=64 disk.qcow2\n"
      "  ringdisk amend -o help disk.qcow2\n";
  command.options = kOptions;
  command.when_interrupted = ": the image is as it was, or one of several changes further";
  command.run = &run;
  return command;
}

}  // namespace ringdisk
