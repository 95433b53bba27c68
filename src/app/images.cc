// SPDX-License-Identifier: Apache-2.0
// Naming and opening of images for all commands.
#include "app/images.h"

#include <sys/stat.h>

#include "app/json_name.h"
#include "base/diagnostics.h"
#include "block/described_backing.h"
#include "nodes/window.h"
#include "runtime/blocking_pool.h"
#include "runtime/shard.h"

namespace ringdisk {
namespace {

constexpr std::string_view kFilePrefix = "file:";

// Options of the format are its driver's affair: it opens the image with them, and refuses by name
// what it does not know. Gives the size of the disk that they make of the image.
Task<ByteCount> open_with_options(Graph& graph, ImageName name, OpenMode mode) {
  mode.metadata_only = true;
  std::shared_ptr<DeviceNode> device = co_await graph.open(std::move(name), mode);
  const ByteCount size = device->size();
  co_await device->close();
  co_return size;
}

// Without what Graph::open takes for itself.
Result<Options> options_of_format(Options options, Diagnostics& diagnostics) {
  RETURN_IF_ERROR(take_policy(options, DevicePolicy(), diagnostics));
  RETURN_IF_ERROR(take_described_backing(options, diagnostics));
  return options;
}

Task<void> find_format(Program& program, Graph& graph, ImageFile& image, bool read_only,
                       bool as_remains) {
  if (image.format.empty()) {
    ProbedFormat probed = co_await graph.probe_format(*image.storage);
    const FormatRemains& remains = probed.remains;
    const bool takes_remains = as_remains && read_only && !remains.is_overwritten;
    if (remains.are_there() && takes_remains) {
      image.format = remains.format;
    } else {
      co_await graph.admit_as_raw(*image.storage, probed, read_only);
      image.format = std::move(probed.name);
    }
  }
  image.admin = co_await program.find_admin(image.format);
}

// Of a raw disk that is a part of its file, what looks at the file and resizes it sees that part.
// The window was found to fit when the disk was opened.
Result<void> show_window(ImageFile& image, Diagnostics& diagnostics) {
  if (!image.options.has("offset") && !image.options.has("size")) return {};
  ASSIGN_OR_RETURN(const Window window, take_window(image.options, diagnostics));
  image.storage = std::make_unique<SharedStorage>(
      std::make_unique<WindowNode>(std::move(image.storage), window));
  return {};
}

}  // namespace

Result<FormatAdmin*> Program::find_admin(std::string_view name) const {
  std::string known;
  for (FormatAdmin* admin : admins) {
    if (admin->name() == name) return admin;
    known += (known.empty() ? "" : ", ") + std::string(admin->name());
  }
  return usage_error(diagnostics(),
                     "unknown file format '" + std::string(name) + "'; there are: " + known);
}

Result<ImageName> parse_image_name(std::string_view word, std::optional<std::string> format,
                                   bool is_description, Diagnostics& diagnostics) {
  ImageName name;
  if (is_description) {
    if (format) {
      return usage_error(diagnostics, "--image-opts and -f exclude each other; write driver=" +
                                          *format + " in the description");
    }
    ASSIGN_OR_RETURN(name.options, Options::parse(word, diagnostics));
    return name;
  }
  name.format = format.value_or("");
  name.filename = word;
  if (word.starts_with(kFilePrefix)) {
    name.filename = word.substr(kFilePrefix.size());
  } else if (has_protocol_prefix(word)) {
    const std::string protocol(word.substr(0, word.find(':')));
    return usage_error(diagnostics, std::string(word) + ": protocol '" + protocol +
                                        "' is not supported; for a file of that name write './" +
                                        std::string(word) + "'");
  }
  return name;
}

Result<ImageName> source_argument(const Arguments& arguments, std::string_view word,
                                  Diagnostics& diagnostics) {
  const bool is_description = arguments.has("image-opts");
  if (is_description || !word.starts_with(kJsonPrefix)) {
    return parse_image_name(word, arguments.value("f"), is_description, diagnostics);
  }
  ImageName name;
  ASSIGN_OR_RETURN(name.options,
                   parse_json_description(word.substr(kJsonPrefix.size()), diagnostics));
  const std::optional<std::string> format = arguments.value("f");
  const std::string driver = name.options.get("driver").value_or(format.value_or(""));
  if (format && *format != driver) {
    return usage_error(diagnostics, "-f " + *format + ", and the description says " + driver);
  }
  if (!driver.empty()) name.options.set("driver", driver);
  return name;
}

Result<CacheMode> cache_argument(const Arguments& arguments, std::string_view key,
                                 CacheMode otherwise, Diagnostics& diagnostics) {
  const std::optional<std::string> text = arguments.value(key);
  if (!text) return otherwise;
  Result<CacheMode> mode = parse_cache_mode(*text);
  if (mode.ok()) return mode;
  return usage_error(diagnostics, "invalid cache mode '" + *text +
                                      "'; there are: none, writeback, writethrough, directsync, "
                                      "unsafe");
}

Result<bool> wants_json(const Arguments& arguments, Diagnostics& diagnostics) {
  const std::string format = arguments.value("output").value_or("human");
  if (format == "json") return true;
  if (format == "human") return false;
  return usage_error(diagnostics, "--output is human or json, not '" + format + "'");
}

Result<std::string> single_name(const Arguments& arguments, Diagnostics& diagnostics) {
  if (arguments.names().size() == 1) return arguments.names().front();
  return usage_error(diagnostics, "expecting one image file name, not " +
                                      std::to_string(arguments.names().size()));
}

Task<ImageFile> open_image_file(Program& program, ImageName name, OpenMode mode, bool as_remains) {
  Graph graph = program.graph();
  ImageFile image;
  image.name = name.text();
  ImageParts parts = co_await graph.take_apart(name);
  image.format = parts.format;
  image.filename = parts.path();
  if (!image.format.empty()) image.admin = co_await program.find_admin(image.format);
  if (!parts.options.empty()) {
    image.described_size = co_await open_with_options(graph, std::move(name), mode);
    image.options = co_await options_of_format(std::move(parts.options), program.diagnostics());
  }
  const std::string storage_driver = parts.storage.get("driver").value_or("");
  image.storage = co_await graph.open_storage(std::move(parts.storage), mode);
  Result<void> found =
      co_await find_format(program, graph, image, mode.read_only, as_remains).result();
  if (!found.ok()) {
    // How it closes adds nothing to why it could not be used.
    Result<void> closed = co_await image.storage->node->close().result();
    static_cast<void>(closed.ok());
    co_return found.error();
  }
  if (image.format == "raw") co_await show_window(image, program.diagnostics());
  if (parts.is_bare_storage) image.format = storage_driver;  // as qemu-img calls it
  co_return std::move(image);
}

Task<ImageDescription> describe_image(Program& program, ImageFile& image) {
  ImageDescription description = co_await image.admin->describe(program.world, *image.storage);
  if (image.described_size) description.virtual_size = *image.described_size;
  co_return std::move(description);
}

Task<ImageDescription> describe_and_close(Program& program, ImageFile& image) {
  Result<ImageDescription> described = co_await describe_image(program, image).result();
  co_return co_await close_after(std::move(described), *image.storage->node).result();
}

Task<ImageDescription> describe_image(Program& program, ImageName name, OpenMode mode) {
  ImageFile image = co_await open_image_file(program, std::move(name), mode);
  co_return co_await describe_and_close(program, image);
}

Task<ImageName> backing_image(Program& program, std::string filename,
                              const ImageDescription& description) {
  auto admit = [&](Blocking token) {
    return program.gate.admit(token, filename, description.backing_name,
                              description.backing_format);
  };
  Result<std::string> admitted = co_await run_blocking(program.world.blocking, admit).result();
  if (!admitted.ok()) {
    Diagnostics& diagnostics = program.diagnostics();
    const std::string why = diagnostics.describe(admitted.error());
    co_return diagnostics.explain(admitted.error(), filename + ": " + why);
  }
  ImageName name;
  name.filename = path_beside(filename, description.backing_name);
  name.format = description.backing_format;
  co_return std::move(name);
}

Task<void> open_devices(Program& program, std::span<const ImageName> names, OpenMode mode,
                        Devices& devices) {
  Graph graph = program.graph();
  for (const ImageName& name : names) {
    std::shared_ptr<DeviceNode> device = co_await graph.open(name, mode);
    devices.push_back(std::move(device));
  }
}

Task<void> close_devices(Devices& devices) {
  Result<void> all;
  for (const std::shared_ptr<DeviceNode>& device : devices) {
    Result<void> closed = co_await device->close().result();
    if (all.ok()) all = std::move(closed);
  }
  devices.clear();
  co_await std::move(all);
}

std::string path_beside(std::string_view image, std::string_view named) {
  const size_t slash = image.rfind('/');
  if (has_protocol_prefix(named)) return std::string(without_file_prefix(named));
  if (named.starts_with('/') || slash == std::string_view::npos) return std::string(named);
  return std::string(image.substr(0, slash + 1)) + std::string(named);
}

bool is_same_file(Blocking, const std::string& one, const std::string& other) {
  struct stat first, second;
  return stat(one.c_str(), &first) == 0 && stat(other.c_str(), &second) == 0 &&
         first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

PathKind kind_of_path(Blocking, const std::string& path) {
  struct stat status;
  if (stat(path.c_str(), &status) != 0) return PathKind::kAbsent;
  return S_ISREG(status.st_mode) ? PathKind::kRegularFile : PathKind::kOther;
}

}  // namespace ringdisk
