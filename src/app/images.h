// SPDX-License-Identifier: Apache-2.0
// Images as commands name them: from -f, --image-opts, -T, -U and a word to something opened. Two
// ways to open: as a disk with its backing chain (Graph::open), or as one file alone, for commands
// that only look at what an image says of itself (info, check) and so open no other file.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "app/program.h"
#include "block/close_after.h"

namespace ringdisk {

// What `word` names: a file name (with or without "file:"; other protocols are refused), or with
// `is_description` options such as driver=qcow2,file.filename=disk.qcow2.
Result<ImageName> parse_image_name(std::string_view word, std::optional<std::string> format,
                                   bool is_description, Diagnostics& diagnostics);

// As above from a command's -f and --image-opts.
Result<ImageName> source_argument(const Arguments& arguments, std::string_view word,
                                  Diagnostics& diagnostics);

Result<CacheMode> cache_argument(const Arguments& arguments, std::string_view key,
                                 CacheMode otherwise, Diagnostics& diagnostics);

// `text` of --output: "human" (false) or "json" (true).
Result<bool> wants_json(const Arguments& arguments, Diagnostics& diagnostics);

// The one name a command takes.
Result<std::string> single_name(const Arguments& arguments, Diagnostics& diagnostics);

// One image file, opened alone. Its user closes it: co_await image.storage->node->close().
struct ImageFile {
  std::string name;      // as the user would recognise it
  std::string filename;  // empty: it is no local file
  std::string format;
  FormatAdmin* admin = nullptr;
  std::unique_ptr<SharedStorage> storage;
  std::optional<ByteCount> described_size;  // of the disk, where options may change it
  Options options;  // the format's own, of the description; its driver has seen them
};
// `as_remains`: where the front of an image is gone and -f says nothing, what is left of it is what
// is looked at (Graph::admit_as_raw otherwise). Only for looking: kDenied for writing.
Task<ImageFile> open_image_file(Program& program, ImageName name, OpenMode mode,
                                bool as_remains = false);

// What it says of itself; its size is that of the disk as it was described to us (offset=, size=).
Task<ImageDescription> describe_image(Program& program, ImageFile& image);
// As above, and closed.
Task<ImageDescription> describe_and_close(Program& program, ImageFile& image);
// As above; opened and closed.
Task<ImageDescription> describe_image(Program& program, ImageName name, OpenMode mode);

// The backing image that `description` of the image file `filename` names, past the gate.
Task<ImageName> backing_image(Program& program, std::string filename,
                              const ImageDescription& description);

// Opens the disk that `name` names, runs body(DeviceNode&), which gives a Task<void>, and closes
// it whatever became of that.
template <class Body>
Task<void> with_device(Program& program, ImageName name, OpenMode mode, Body& body) {
  Graph graph = program.graph();
  std::shared_ptr<DeviceNode> device = co_await graph.open(std::move(name), mode);
  Result<void> done = co_await body(*device).result();
  co_await close_after(std::move(done), *device);
}

using Devices = std::vector<std::shared_ptr<DeviceNode>>;

// Opens disks, in order. On an error `devices` holds those that are open, to be closed.
Task<void> open_devices(Program& program, std::span<const ImageName> names, OpenMode mode,
                        Devices& devices);
// Closes all; gives the first error among them.
Task<void> close_devices(Devices& devices);

// `named` as seen from the directory of `image`: where a relative backing file lies.
std::string path_beside(std::string_view image, std::string_view named);

// Whether both paths are the same existing file.
bool is_same_file(Blocking token, const std::string& one, const std::string& other);
// What lies at a path, links followed.
enum class PathKind : uint8_t { kAbsent, kRegularFile, kOther };
PathKind kind_of_path(Blocking token, const std::string& path);

}  // namespace ringdisk
