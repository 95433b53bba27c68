// SPDX-License-Identifier: Apache-2.0
// Options and backing of new images, and the removal of what did not become one.
#include "app/create_image.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "app/images.h"
#include "base/diagnostics.h"
#include "base/limits.h"
#include "block/open_gate.h"
#include "runtime/blocking_pool.h"

namespace ringdisk {
namespace {

// What is said of the new file, whatever its format.
constexpr std::array<std::string_view, 2> kFileWords = {"extent_size_hint", "nocow"};

CreateRequest request_of(const NewImage& image) {
  CreateRequest request;
  request.storage.set("filename", image.filename);
  request.size = image.size;
  request.options = image.options;
  for (std::string_view word : kFileWords) {
    std::optional<std::string> value = request.options.take(word);
    if (value) request.storage.set(std::string(word), *std::move(value));
  }
  request.backing_name = image.backing_name;
  request.backing_format = image.backing_format;
  return request;
}

OpenMode describing_mode() {
  OpenMode mode;
  mode.read_only = mode.no_backing = mode.keep_clean = true;
  return mode;
}

// A name that only other programs can open.
bool is_elsewhere(const std::string& name) {
  return has_protocol_prefix(name) && !name.starts_with("file:");
}

Result<ImageName> first_backing(Program& program, const NewImage& image) {
  const std::string path = path_beside(image.filename, image.backing_name);
  return parse_image_name(path, image.backing_format, false, program.diagnostics());
}

// `by_way_of`: what leads from the image to `below`; empty: it names it itself.
Task<void> refuse_same(Program& program, const NewImage& image, const std::string& below,
                       const std::string& by_way_of) {
  auto compare = [&](Blocking token) -> Result<void> {
    if (!is_same_file(token, below, image.filename)) return {};
    std::string text = image.filename + ": would be its own backing file";
    if (!by_way_of.empty()) text += ", by way of '" + by_way_of + "'";
    return usage_error(program.diagnostics(), text);
  };
  co_await run_blocking(program.world.blocking, compare);
}

}  // namespace

// An image that backs itself could never be opened, and what it held would be lost. Names are
// followed as far as they could be opened afterwards; where that ends, so does the danger.
Task<void> refuse_loop(Program& program, const NewImage& image) {
  if (image.backing_is_trusted && is_elsewhere(image.backing_name)) co_return;
  ImageName below = co_await first_backing(program, image);
  co_await refuse_same(program, image, below.filename, "");
  if (image.backing_is_trusted) co_return;
  for (uint32_t depth = 0; depth < limits::kBackingDepthMax; ++depth) {
    const std::string path = below.filename;
    Result<ImageDescription> description =
        co_await describe_image(program, std::move(below), describing_mode()).result();
    if (depth == 0 && !description.ok()) co_await fail(description.error());
    if (!description.ok() || description.value().backing_name.empty()) co_return;
    const std::string next_path = path_beside(path, description.value().backing_name);
    co_await refuse_same(program, image, next_path, image.backing_name);
    Result<ImageName> next = co_await backing_image(program, path, description.value()).result();
    if (!next.ok()) co_return;
    below = std::move(next).value();
  }
}

Error about_image(Diagnostics& diagnostics, const Error& error, const std::string& filename) {
  return error.node != 0 ? error : at_node(error, diagnostics.add_node(filename));
}

// Not one that begins or ends in the middle; ",," is a comma within a value.
static bool is_option_list(std::string_view text) {
  const size_t last = text.find_last_not_of(',');
  if (last == std::string_view::npos || text.front() == ',') return false;
  return (text.size() - 1 - last) % 2 == 0;
}

static Result<void> check_option_list(const std::string& word, const std::string& about,
                                      Diagnostics& diagnostics) {
  if (is_option_list(word)) return {};
  return usage_error(diagnostics, about + "-o takes options a=b,c=d, not '" + word + "'");
}

Result<Options> new_image_options(const std::vector<std::string>& words,
                                  const std::string& filename, Diagnostics& diagnostics) {
  Options all;
  for (const std::string& word : words) {
    RETURN_IF_ERROR(check_option_list(word, filename + ": ", diagnostics));
    Result<Options> options = Options::parse(word, diagnostics);
    if (!options.ok()) return about_image(diagnostics, options.error(), filename);
    for (const auto& [key, value] : options.value().values()) all.set(key, value);
  }
  return all;
}

// Those of other programs too: with -u an image may lie over one that only they can read.
constexpr std::array<std::string_view, 13> kImageFormats = {
    "raw",  "qcow2", "luks", "bochs", "cloop", "dmg", "parallels",
    "qcow", "qed",   "vdi",  "vhdx",  "vmdk",  "vpc"};

Result<void> check_backing_format(const std::string& format, const std::string& filename,
                                  Diagnostics& diagnostics) {
  if (std::ranges::find(kImageFormats, format) != kImageFormats.end()) return {};
  return usage_error(diagnostics, filename + ": there is no image format '" + format +
                                      "' for a backing file; there are raw, qcow2 and luks, and "
                                      "with -u those that other programs can read");
}

Result<void> take_backing(const Arguments& arguments, std::string_view key, NewImage& image,
                          Diagnostics& diagnostics) {
  image.backing_name = image.options.take("backing_file").value_or("");
  image.backing_format = image.options.take("backing_fmt").value_or("");
  if (std::optional<std::string> name = arguments.value(key)) image.backing_name = *name;
  if (std::optional<std::string> format = arguments.value("F")) image.backing_format = *format;
  if (image.backing_name.empty() && !image.backing_format.empty()) {
    return usage_error(
        diagnostics, "-F names the format of a backing image; name one with -" + std::string(key));
  }
  if (!image.backing_name.empty() && image.backing_format.empty()) {
    return usage_error(diagnostics, image.filename + ": backing file '" + image.backing_name +
                                        "' needs a format: say -F raw or -F qcow2");
  }
  if (image.backing_name.empty()) return {};
  if (image.backing_name.starts_with("file:") && !image.backing_name.starts_with("file:/")) {
    return usage_error(diagnostics, image.filename + ": backing file '" + image.backing_name +
                                        "' would be looked for where each program is started; "
                                        "leave out 'file:', or write the whole path behind it");
  }
  return check_backing_format(image.backing_format, image.filename, diagnostics);
}

Task<ByteCount> backing_size(Program& program, const NewImage& image) {
  ImageName name = co_await first_backing(program, image);
  ImageDescription description =
      co_await describe_image(program, std::move(name), describing_mode());
  co_return description.virtual_size;
}

Result<bool> asks_for_option_help(const Arguments& arguments, Diagnostics& diagnostics) {
  auto asks = [](const std::string& word) {
    std::string listed = "," + word + ",";
    for (size_t at; (at = listed.find(",,")) != std::string::npos;) listed.replace(at, 2, "x");
    return listed.find(",help,") != std::string::npos || listed.find(",?,") != std::string::npos;
  };
  const std::vector<std::string> words = arguments.values("o");
  if (!std::any_of(words.begin(), words.end(), asks)) return false;
  for (const std::string& word : words) RETURN_IF_ERROR(check_option_list(word, "", diagnostics));
  return true;
}

void print_option_help(Program& program,
                       const std::vector<std::pair<std::string, std::string>>& options) {
  std::string text = "Supported options:\n";
  for (const auto& [option, meaning] : options) {
    std::string line = "  " + option;
    line.resize(std::max<size_t>(line.size(), 24), ' ');
    text += line + " - " + meaning + "\n";
  }
  program.console.write(text);
}

Result<bool> print_option_help(Program& program, const Arguments& arguments,
                               std::string_view format_key) {
  ASSIGN_OR_RETURN(const bool asks, asks_for_option_help(arguments, program.diagnostics()));
  if (!asks) return false;
  ASSIGN_OR_RETURN(FormatAdmin * admin,
                   program.find_admin(arguments.value(format_key).value_or("raw")));
  std::vector<std::pair<std::string, std::string>> options = admin->create_options();
  options.emplace_back("extent_size_hint=<size>", "Size of the file's extents (XFS)");
  options.emplace_back("nocow=<bool (on/off)>",
                       "The file's blocks are not copied on write (btrfs)");
  std::sort(options.begin(), options.end());
  print_option_help(program, options);
  return true;
}

std::string formatting_line(const NewImage& image) {
  std::string line = "Formatting '" + image.filename + "', fmt=" + std::string(image.admin->name());
  for (const auto& [key, value] : image.admin->creation_summary(request_of(image))) {
    line += " " + key + "=" + value;
  }
  for (const char* word : {"nocow", "extent_size_hint"}) {
    const std::optional<std::string> value = image.options.get(word);
    if (!value) continue;
    const Result<uint64_t> size = parse_size(*value);
    line += std::string(" ") + word + "=" + (size.ok() ? std::to_string(size.value()) : *value);
  }
  return line + "\n";
}

Task<void> create_image(Program& program, const NewImage& image) {
  if (!image.backing_name.empty()) co_await refuse_loop(program, image);
  auto kind = [&](Blocking token) -> Result<PathKind> {
    return kind_of_path(token, image.filename);
  };
  PathKind before = co_await run_blocking(program.world.blocking, kind);
  Graph graph = program.graph();
  CreateRequest request = request_of(image);
  Result<void> created = co_await image.admin->create(graph, std::move(request)).result();
  // What was there before stays: its user may hold it locked, and that is why we failed.
  if (!created.ok() && before == PathKind::kAbsent) {
    co_await remove_leftover(program, image.filename);
  }
  if (!created.ok()) {
    co_await fail(about_image(program.diagnostics(), created.error(), image.filename));
  }
}

Task<void> remove_leftover(Program& program, std::string filename) {
  auto remove = [&](Blocking token) -> Result<void> {
    if (kind_of_path(token, filename) != PathKind::kRegularFile) return {};
    if (unlink(filename.c_str()) != 0) return Error::from_errno(errno, "remove");
    return {};
  };
  const Result<void> removed = co_await run_blocking(program.world.blocking, remove).result();
  if (removed.ok()) co_return;
  program.console.remark("ringdisk: " + filename + ": holds nothing of use, and could not be " +
                         "removed: " + errno_text(removed.error().errno_value) + "\n");
}

}  // namespace ringdisk
